"""What workers tell the master: plain on the wire, added up once each."""

from dataclasses import replace

import msgpack
import pytest
from literal_runs import ledger_of

from seqstress.metrics.histogram import Histogram
from seqstress.protocol import Fate
from seqstress.verdict.snapshot import WorkerSnapshot, merge_snapshots


def snapshot(worker, final=True, run_id="run", oks=3):
    lag = Histogram()
    lag.record(worker * 1000)
    return WorkerSnapshot(run_id, worker, "host", 42, final, ledger_of({Fate.OK: oks}), lag, 1.5, 3.0, 8)


def test_it_survives_the_way_to_the_master(failure):
    sent = snapshot(1)
    sent.ledger.add_failure(failure)
    again = WorkerSnapshot.from_plain(msgpack.unpackb(msgpack.packb(sent.to_plain())))
    assert again.to_plain() == sent.to_plain()
    assert (again.cpu_share, again.final, again.lag) == (0.5, True, sent.lag)


def test_merging_adds_each_worker_once():
    merged = merge_snapshots([snapshot(2, oks=4, final=False), snapshot(1, oks=3)])
    assert merged.ledger.total().fates[Fate.OK] == 7
    assert (merged.lag.count, merged.lag.max, merged.cpu_s, merged.users) == (2, 2000, 3.0, 16)
    assert [worker.worker for worker in merged.workers] == [1, 2]
    assert merged.unfinished == (2,)


def test_merging_leaves_the_snapshots_alone():
    one = snapshot(1)
    merge_snapshots([one, snapshot(2)])
    assert one.ledger.total().fates[Fate.OK] == 3


def test_two_of_one_worker_or_of_two_runs_are_refused():
    with pytest.raises(ValueError, match="same worker"):
        merge_snapshots([snapshot(1), snapshot(1)])
    with pytest.raises(ValueError, match="different runs"):
        merge_snapshots([snapshot(1), replace(snapshot(2), run_id="other")])


def test_a_swarm_that_said_nothing_is_an_empty_account():
    assert merge_snapshots([]).ledger.total().steps_sent == 0
