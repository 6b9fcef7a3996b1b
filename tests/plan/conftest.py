"""Properties are checked without a deadline for single examples: a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("seqstress", deadline=None)
settings.load_profile("seqstress")
