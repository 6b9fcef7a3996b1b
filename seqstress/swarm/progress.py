"""Live progress: one line every few seconds that says what matters."""

import time
from collections.abc import Callable

import gevent

from seqstress.protocol import Fate
from seqstress.swarm.conductor import Conductor
from seqstress.verdict.ledger import SequenceEnd
from seqstress.verdict.rules import FAILING_FATES
from seqstress.verdict.snapshot import merge_snapshots

INTERVAL_S = 2.0


class Progress:
    """A greenlet that prints a line every ``INTERVAL_S`` until it is stopped."""

    def __init__(self, conductor: Conductor, refresh: Callable[[Conductor], None]) -> None:
        self._conductor = conductor
        self._refresh = refresh
        self._sequences = 0
        self._at_s = time.monotonic()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End the greenlet."""
        self._greenlet.kill(block=False)

    def _run(self) -> None:
        while True:
            gevent.sleep(INTERVAL_S)
            self._refresh(self._conductor)
            print(self.line(), flush=True)

    def line(self) -> str:
        """The state of the run since it began, rates since the last line."""
        merged = merge_snapshots(self._conductor.snapshots)
        total = merged.ledger.total()
        ended = sum(total.sequence_ends) - total.sequence_ends[SequenceEnd.NOT_SENT]
        now_s = time.monotonic()
        rate = (ended - self._sequences) / (now_s - self._at_s)
        self._sequences, self._at_s = ended, now_s
        settled = total.settled
        share = f"{total.fates[Fate.OK] / settled:.2%} ok" if settled else "no step yet"
        others = [f"{fate.label} {total.fates[fate]:,}" for fate in Fate if fate is not Fate.OK and total.fates[fate]]
        mark = "!" if any(total.fates[fate] for fate in FAILING_FATES) else " "
        minutes, seconds = divmod(int(self._conductor.elapsed_s), 60)
        return (
            f"{mark}{minutes:02d}:{seconds:02d}  {ended:,} sequences ({rate:,.0f}/s)  {settled:,} steps: {share}"
            + "".join(f", {other}" for other in others)
            + (f"  p99 {total.response.percentile(99) / 1000:,.1f} ms" if total.response.count else "")
        )
