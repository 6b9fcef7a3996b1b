"""Our own events beside Locust's: anyone can listen to them in a locustfile.

They hang on ``locust.events`` (and so on ``environment.events``) as soon as this module is imported::

    from locust import events
    from seqstress.swarm.users import SequenceUser

    @events.sequence_finished.add_listener
    def slow(outcome, sequence, **_):
        if sequence.latency_us is not None and sequence.latency_us > 1_000_000: ...

Listeners run in the greenlet of the user that sent the sequence, after its last answer.
"""

from locust import events
from locust.event import EventHook

sequence_finished = EventHook()
"""Fired for each sequence: ``environment``, ``user``, ``outcome`` (PlanOutcome), ``sequence`` (SequenceOutcome)."""

step_failed = EventHook()
"""Fired for each step that was sent and did not end ``ok``: ``environment``, ``user``, ``outcome``, ``record``
(StepRecord), ``failure`` (its full Failure record; None where the ledger has enough of that fate)."""

stray_answer = EventHook()
"""Fired for each answer that nobody waited for: ``environment``, ``user``, ``outcome``, ``stray`` (StrayReply)."""

user_done = EventHook()
"""Fired when a user has sent all its iterations: ``environment``, ``user``."""

user_left = EventHook()
"""Fired when a user has left the run: ``environment``, ``user``."""

run_finished = EventHook()
"""Fired once per run on the master (or locally), after the verdict: ``environment``, ``view`` (RunView)."""

for _name in ("sequence_finished", "step_failed", "stray_answer", "user_done", "user_left", "run_finished"):
    setattr(events, _name, globals()[_name])
