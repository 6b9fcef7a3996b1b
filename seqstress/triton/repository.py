"""The models that the embedded server serves: typed specs, and the repository that they become on disk."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from seqstress.errors import PreflightError
from seqstress.protocol import Dtype

ACCUMULATOR = Path(__file__).parent / "models" / "accumulator.py"

_CONFIG_TYPES = {
    Dtype.INT32: "TYPE_INT32",
    Dtype.INT64: "TYPE_INT64",
    Dtype.FP32: "TYPE_FP32",
    Dtype.FP64: "TYPE_FP64",
    Dtype.BYTES: "TYPE_STRING",
}

_WITHOUT_PRESERVE_ORDERING = frozenset({"2.36"})
"""Releases whose model_config.proto has no such field in StrategyOldest: the whole server refuses to start."""


class Strategy(Enum):
    """How Triton schedules sequences onto an instance (ModelSequenceBatching in model_config.proto)."""

    DIRECT = "direct"
    """Each sequence owns one index of the batch for its whole life."""
    OLDEST = "oldest"
    """A dynamic batcher over a set of candidate sequences: the model cannot see the slot."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One stateful model with tensors INPUT and OUTPUT of shape [1]."""

    name: str
    dtype: Dtype = Dtype.INT32
    strategy: Strategy = Strategy.DIRECT
    max_batch_size: int = 8
    """0 means that tensors have no batch dimension, and one slot per instance."""
    instances: int = 1
    """Stub processes of the Python backend."""
    idle_limit_us: int = 1_000_000
    execute_delay_us: int = 0
    """How long one execution takes, whatever the size of its batch."""
    max_candidate_sequences: int | None = None
    """For OLDEST: the slots of an instance; None leaves it to Triton (``max_batch_size``, at least 1)."""
    preserve_ordering: bool = False
    """For OLDEST: answers of an instance leave in the order of their requests."""
    source: Path = ACCUMULATOR
    """The Python file that becomes the model's ``model.py``."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Further ``parameters`` of config.pbtxt, for a ``source`` that knows them."""

    def __post_init__(self) -> None:
        oldest_only = self.max_candidate_sequences is not None or self.preserve_ordering
        if oldest_only and self.strategy is not Strategy.OLDEST:
            raise ValueError(f"{self.name}: candidates and ordering belong to the oldest strategy")

    @property
    def slots(self) -> int:
        """How many sequences can be under way at once; the next START waits in the backlog."""
        if self.strategy is Strategy.OLDEST and self.max_candidate_sequences:
            return self.max_candidate_sequences * self.instances
        return max(1, self.max_batch_size) * self.instances

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of INPUT in a request, batch dimension included."""
        return (1, 1) if self.max_batch_size else (1,)


def _l0(instances: int, max_batch_size: int) -> ModelSpec:
    """A layout of Triton's qa/L0_sequence_stress: four slots, whatever their split over instances."""
    return ModelSpec(
        f"l0_{instances}x{max_batch_size}",
        instances=instances,
        max_batch_size=max_batch_size,
        execute_delay_us=3_000,
    )


MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _l0(1, 4),
            _l0(2, 2),
            _l0(4, 1),
            ModelSpec("direct"),
            ModelSpec("oldest", strategy=Strategy.OLDEST, max_candidate_sequences=8),
            ModelSpec("oldest_ordered", strategy=Strategy.OLDEST, max_candidate_sequences=8, preserve_ordering=True),
            ModelSpec("nobatch", max_batch_size=0),
            ModelSpec("int32", Dtype.INT32),
            ModelSpec("int64", Dtype.INT64),
            ModelSpec("float32", Dtype.FP32),
            ModelSpec("float64", Dtype.FP64),
            ModelSpec("string", Dtype.BYTES),
        )
    }
)
"""Every model that ships, by name."""


def specs_named(names: Iterable[str]) -> tuple[ModelSpec, ...]:
    """The shipped specs of these names, in order. Raises PreflightError for a name that is not among them."""
    wanted = tuple(names)
    unknown = [name for name in wanted if name not in MODELS]
    if unknown:
        raise PreflightError(
            f"no model named {', '.join(map(repr, unknown))} ships with seqstress. Known: {', '.join(MODELS)}"
        )
    return tuple(MODELS[name] for name in wanted)


def servable_models(release: str | None) -> tuple[ModelSpec, ...]:
    """The shipped models that ``release`` (None: the installed one) can serve."""
    return tuple(spec for spec in MODELS.values() if _is_servable(spec, release))


def require_servable(specs: Iterable[ModelSpec], release: str | None) -> None:
    """Raise PreflightError for a spec that needs what ``release`` does not know."""
    for spec in specs:
        if not _is_servable(spec, release):
            raise PreflightError(
                f"model {spec.name!r} needs preserve_ordering, which Triton {release} does not know:"
                " take another model or a newer --release"
            )


def _is_servable(spec: ModelSpec, release: str | None) -> bool:
    return not spec.preserve_ordering or release not in _WITHOUT_PRESERVE_ORDERING


def write_repository(directory: Path, specs: Iterable[ModelSpec]) -> None:
    """Write ``<name>/config.pbtxt`` and ``<name>/1/model.py`` for each spec, the layout that Triton reads."""
    for spec in specs:
        version = directory / spec.name / "1"
        version.mkdir(parents=True)
        shutil.copyfile(spec.source, version / "model.py")
        (directory / spec.name / "config.pbtxt").write_text(config_pbtxt(spec), encoding="utf-8")


def config_pbtxt(spec: ModelSpec) -> str:
    """The model's configuration in protobuf text format (message ModelConfig of model_config.proto)."""
    dtype = _CONFIG_TYPES[spec.dtype]
    parts = [
        f'name: "{spec.name}"',
        'backend: "python"',
        f"max_batch_size: {spec.max_batch_size}",
        f'input [ {{ name: "INPUT" data_type: {dtype} dims: [ 1 ] }} ]',
        f'output [ {{ name: "OUTPUT" data_type: {dtype} dims: [ 1 ] }} ]',
        f"instance_group [ {{ count: {spec.instances} kind: KIND_CPU }} ]",
        _sequence_batching(spec),
        *(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
            for key, value in _parameters(spec).items()
        ),
    ]
    return "\n".join(parts) + "\n"


def _parameters(spec: ModelSpec) -> dict[str, str]:
    return {
        "state_key": "slot" if spec.strategy is Strategy.DIRECT else "correlation_id",
        "execute_delay_us": str(spec.execute_delay_us),
        **dict(spec.parameters),
    }


def _sequence_batching(spec: ModelSpec) -> str:
    flags = (("START", "START"), ("READY", "READY"), ("END", "END"))
    controls = [
        f'  control_input [ {{ name: "{name}"'
        f" control [ {{ kind: CONTROL_SEQUENCE_{kind} int32_false_true: [ 0, 1 ] }} ] }} ]"
        for name, kind in flags
    ]
    controls.append(
        '  control_input [ { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] } ]'
    )
    return "\n".join(
        (
            "sequence_batching {",
            f"  max_sequence_idle_microseconds: {spec.idle_limit_us}",
            *controls,
            f"  {_strategy(spec)}",
            "}",
        )
    )


def _strategy(spec: ModelSpec) -> str:
    if spec.strategy is Strategy.DIRECT:
        return "direct { }"
    fields = []
    if spec.max_candidate_sequences is not None:
        fields.append(f"max_candidate_sequences: {spec.max_candidate_sequences}")
    if spec.preserve_ordering:
        fields.append("preserve_ordering: true")
    return f"oldest {{ {' '.join(fields)} }}"
