"""The project's locustfile with listeners on top, as anyone would write it; prints what it heard as JSON."""

import locust  # first: it makes the standard library cooperative

import json
from collections import Counter

from locust import events

from seqstress.swarm.locustfile import SequenceUser

heard: Counter[str] = Counter()


@events.request.add_listener
def _on_request(request_type, **_):
    heard[f"request {request_type}"] += 1


@events.sequence_finished.add_listener
def _on_sequence(sequence, **_):
    heard[f"sequence {sequence.end.label}"] += 1


@events.step_failed.add_listener
def _on_failure(record, failure, **_):
    heard[f"failure {record.fate.label}"] += 1
    if failure is not None:
        heard[f"record {failure.label}"] += 1


@events.init.add_listener
def _on_init(environment, **_):
    @environment.events.quit.add_listener
    def _on_quit(**_):
        stats = environment.stats
        rows = {f"{method} {name}": entry.num_requests for (name, method), entry in stats.entries.items()}
        errors = {str(error.error): error.occurrences for error in stats.errors.values()}
        said = {"heard": heard, "rows": rows, "total": stats.total.num_requests, "errors": errors}
        print("OBSERVED " + json.dumps(said), flush=True)
