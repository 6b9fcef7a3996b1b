"""What Locust loads: ``locust -f locustfile.py --scenario scenarios/l0.yaml --host HOST:PORT``."""

import locust  # first: it makes the standard library cooperative

import seqstress.swarm.lifecycle  # hooks into Locust's events and command line
from seqstress.swarm.users import SequenceUser
