"""What Locust loads: ``locust -f locustfile.py --scenario scenarios/l0.yaml --host HOST:PORT``."""

import locust  # first: it makes the standard library cooperative

from seqstress.swarm.locustfile import SequenceUser
