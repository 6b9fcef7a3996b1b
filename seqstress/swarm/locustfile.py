"""What Locust loads where there is no clone with a ``locustfile.py`` of its own: the same."""

import locust  # first: it makes the standard library cooperative

import seqstress.swarm.lifecycle
from seqstress.swarm.users import SequenceUser

__all__ = ["SequenceUser", "locust", "seqstress"]
