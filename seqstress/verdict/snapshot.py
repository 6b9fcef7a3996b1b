"""What a worker tells the master about itself and its account, cumulatively: plain types only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from seqstress.metrics.histogram import Histogram
from seqstress.verdict.ledger import Ledger


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """Everything a worker has counted since the run began. Cumulative, never a delta: the latest one replaces
    the one before it, so a lost message costs nothing but freshness."""

    run_id: str
    worker: int
    host: str
    pid: int
    final: bool
    """Whether the worker is done: no later snapshot of this run follows."""
    ledger: Ledger
    """Its failure records travel with the final snapshot only: they are large, and told every second."""
    lag: Histogram
    """How late the event loop was at the marks of the lag probe."""
    cpu_s: float
    """CPU time (user and system) of the worker's process since the run began."""
    wall_s: float
    """Time since the run began on this worker."""
    users: int
    """How many users it ran at most."""
    resting: int = 0
    """How many users have sent all their iterations and wait for the end of the run."""

    @property
    def cpu_share(self) -> float:
        """The part of one core that the process used; 0.0 before any time has passed."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0

    def to_plain(self) -> dict[str, object]:
        """Plain types only: a numpy integer would silence Locust's reporter for good."""
        return {
            "run_id": self.run_id,
            "worker": int(self.worker),
            "host": self.host,
            "pid": int(self.pid),
            "final": bool(self.final),
            "ledger": self.ledger.to_plain(with_failures=self.final),
            "lag": self.lag.to_plain(),
            "cpu_s": float(self.cpu_s),
            "wall_s": float(self.wall_s),
            "users": int(self.users),
            "resting": int(self.resting),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> "WorkerSnapshot":
        """What ``to_plain`` gave. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            run_id=str(plain["run_id"]),
            worker=cast(int, plain["worker"]),
            host=str(plain["host"]),
            pid=cast(int, plain["pid"]),
            final=bool(plain["final"]),
            ledger=Ledger.from_plain(cast("Mapping[str, object]", plain["ledger"])),
            lag=Histogram.from_plain(cast("Mapping[str, object]", plain["lag"])),
            cpu_s=cast(float, plain["cpu_s"]),
            wall_s=cast(float, plain["wall_s"]),
            users=cast(int, plain["users"]),
            resting=cast(int, plain["resting"]),
        )


@dataclass(frozen=True, slots=True)
class Merged:
    """The whole swarm in one account."""

    ledger: Ledger
    lag: Histogram
    cpu_s: float
    users: int
    workers: tuple[WorkerSnapshot, ...]
    """In the order of their index."""

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The workers whose final snapshot is missing."""
        return tuple(snapshot.worker for snapshot in self.workers if not snapshot.final)


def merge_snapshots(snapshots: Iterable[WorkerSnapshot]) -> Merged:
    """Add up the latest snapshot of each worker. Raises ValueError for two of one worker, which would count
    it twice, and for snapshots of different runs."""
    workers = tuple(sorted(snapshots, key=lambda snapshot: snapshot.worker))
    if len({snapshot.worker for snapshot in workers}) < len(workers):
        raise ValueError("two snapshots of the same worker")
    if len({snapshot.run_id for snapshot in workers}) > 1:
        raise ValueError("snapshots of different runs")
    ledger, lag = Ledger(), Histogram()
    for snapshot in workers:
        ledger.merge(snapshot.ledger)
        lag.merge(snapshot.lag)
    return Merged(
        ledger=ledger,
        lag=lag,
        cpu_s=sum(snapshot.cpu_s for snapshot in workers),
        users=sum(snapshot.users for snapshot in workers),
        workers=workers,
    )
