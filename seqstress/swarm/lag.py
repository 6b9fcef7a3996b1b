"""Measures how late the event loop is: what a latency that this process measured can be off by."""

import time
from collections import deque

import gevent

from seqstress.drive.exchange import Conditions
from seqstress.metrics.histogram import Histogram

INTERVAL_NS = 20_000_000


class LagProbe:
    """A greenlet that sleeps to absolute marks, 20 ms apart, and records how late each one was met.

    ``Conditions.lag_ns`` is the worst of the last ``memory_s``: as far back as a judgement by the clock may look.
    """

    def __init__(self, conditions: Conditions, memory_s: float) -> None:
        self.histogram = Histogram()
        self._conditions = conditions
        self._recent: deque[int] = deque(maxlen=max(1, int(memory_s * 1e9 / INTERVAL_NS)))
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End the greenlet; the histogram stays."""
        self._greenlet.kill(block=False)

    def _run(self) -> None:
        due = time.monotonic_ns() + INTERVAL_NS
        while True:
            gevent.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            lag = max(0, time.monotonic_ns() - due)
            self.histogram.record(lag // 1000)
            self._recent.append(lag)
            self._conditions.lag_ns = max(self._recent)
            # Marks that were slept through are one lateness, not many.
            due += INTERVAL_NS * (1 + lag // INTERVAL_NS)
