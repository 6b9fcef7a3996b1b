"""All that a locustfile needs: importing it hooks seqstress into Locust's events and command line."""

import locust  # first: it makes the standard library cooperative

import seqstress.swarm.lifecycle
from seqstress.swarm.users import SequenceUser
