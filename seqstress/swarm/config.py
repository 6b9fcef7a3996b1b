"""What one run is: fixed by the master (or locally) before it starts, and the same on every worker."""

from dataclasses import dataclass
from typing import Any, cast

from seqstress.protocol import Binding, Dtype, TensorSpec
from seqstress.scenario import Scenario
from seqstress.triton.preflight import Strategy, Target


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Travels to the workers as plain types among Locust's own options, so that late joiners have it too."""

    run_id: str
    nonce: int
    """Tells this run from others on the same server: goes into correlation and request IDs."""
    seed: int
    scenario: Scenario
    target: Target
    address: str
    """HOST:PORT of the server's gRPC endpoint."""
    transport: str
    workers: int
    """How many there were at the start; they share the model's slots."""
    iterations: int | None
    """Plans per user; None = until the run is stopped."""
    started_epoch_s: float
    verbose_steps: bool

    def to_plain(self) -> dict[str, object]:
        """Plain types only: what msgpack can hold."""
        return {
            "run_id": self.run_id,
            "nonce": self.nonce,
            "seed": str(self.seed),  # it may have more than 64 bits
            "scenario": self.scenario.to_plain(),
            "target": _target_to_plain(self.target),
            "address": self.address,
            "transport": self.transport,
            "workers": self.workers,
            "iterations": self.iterations,
            "started_epoch_s": self.started_epoch_s,
            "verbose_steps": self.verbose_steps,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "RunConfig":
        """What ``to_plain`` gave."""
        return cls(
            run_id=plain["run_id"],
            nonce=plain["nonce"],
            seed=int(plain["seed"]),
            scenario=Scenario.from_plain(cast("dict[str, object]", plain["scenario"])),
            target=_target_from_plain(plain["target"]),
            address=plain["address"],
            transport=plain["transport"],
            workers=plain["workers"],
            iterations=plain["iterations"],
            started_epoch_s=plain["started_epoch_s"],
            verbose_steps=plain["verbose_steps"],
        )


def _target_to_plain(target: Target) -> dict[str, object]:
    binding = target.binding
    return {
        "model": binding.model,
        "version": binding.version,
        "input": _tensor_to_plain(binding.input),
        "output": _tensor_to_plain(binding.output),
        "decoupled": binding.decoupled,
        "slots": target.slots,
        "idle_limit_ns": target.idle_limit_ns,
        "strategy": target.strategy.value,
        "warnings": list(target.warnings),
    }


def _target_from_plain(plain: dict[str, Any]) -> Target:
    return Target(
        binding=Binding(
            model=plain["model"],
            version=plain["version"],
            input=_tensor_from_plain(plain["input"]),
            output=_tensor_from_plain(plain["output"]),
            decoupled=plain["decoupled"],
        ),
        slots=plain["slots"],
        idle_limit_ns=plain["idle_limit_ns"],
        strategy=Strategy(plain["strategy"]),
        warnings=tuple(plain["warnings"]),
    )


def _tensor_to_plain(tensor: TensorSpec) -> list[object]:
    return [tensor.name, tensor.dtype.value, list(tensor.shape)]


def _tensor_from_plain(plain: list[Any]) -> TensorSpec:
    name, dtype, shape = plain
    return TensorSpec(name, Dtype(dtype), tuple(shape))
