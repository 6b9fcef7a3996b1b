"""How far this machine can be trusted just now: what else ran beside us, and whether its pace was steady."""

import contextlib
import resource
import time
from dataclasses import dataclass

import psutil

_LOOP = 1_000_000


@dataclass(frozen=True, slots=True)
class Noise:
    """What disturbed one round."""

    foreign_share: float
    """CPU time of others than the clients, the server and us, and what the hypervisor took; 1.0 = one core."""
    pace_us: float
    """CPU time of a fixed loop of plain Python: differs between rounds when the cores' own pace does."""


class NoiseWatch:
    """Watches one round, from its making to ``stop``."""

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._pace_us = _pace_us()
        self._start_s = time.monotonic()
        self._all_s = _busy_s()
        self._known_s = self._ours_s()

    def stop(self) -> Noise:
        """What disturbed us since."""
        foreign_s = (_busy_s() - self._all_s) - (self._ours_s() - self._known_s)
        return Noise(max(0.0, foreign_s) / (time.monotonic() - self._start_s), self._pace_us)

    def _ours_s(self) -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        server = psutil.Process(self._server_pid)
        processes = [server, *server.children(recursive=True)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used) + sum(map(_cpu_s, processes))


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)


def _pace_us() -> float:
    start_ns = time.process_time_ns()
    total = 0
    for number in range(_LOOP):
        total += number
    return (time.process_time_ns() - start_ns) / 1000
