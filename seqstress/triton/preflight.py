"""Before any load: does the scenario fit the model that the server has?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from tritonclient.grpc import model_config_pb2

from seqstress.errors import ConnectError, PreflightError, RpcError, ScenarioError
from seqstress.plan.ids import IdLayout
from seqstress.plan.values import unfit_values
from seqstress.protocol import Binding, Dtype, TensorSpec
from seqstress.scenario.model import IdReuse, Scenario
from seqstress.scenario.nearest import suggestion
from seqstress.scenario.rules import FLOATS, VALUE_REMEDY, Contradiction, think_time_beyond
from seqstress.scenario.several import as_one
from seqstress.triton.control import UNIMPLEMENTED, Control


class Strategy(Enum):
    """How Triton's sequence batcher puts sequences into batches."""

    DIRECT = "direct"
    """Each sequence has a place in the batch of one instance, which the model sees as its batch index."""
    OLDEST = "oldest"
    """The dynamic batcher forms batches from the oldest requests: the model sees correlation IDs only."""


class StateKey(Enum):
    """What a model can keep the state of a sequence by."""

    SLOT = "slot"
    CORRELATION_ID = "correlation_id"


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a scenario fits, with what its config says about sequences."""

    binding: Binding
    slots: int
    """Sequences that it holds at once; a further START waits in the backlog."""
    idle_limit_ns: int
    strategy: Strategy
    warnings: tuple[str, ...]

    @property
    def decoupled(self) -> bool:
        """Whether a step can have any number of answers."""
        return self.binding.decoupled

    @property
    def state_key(self) -> StateKey:
        """What the model can keep its state by: it sees the slot with strategy direct only."""
        return StateKey.SLOT if self.strategy is Strategy.DIRECT else StateKey.CORRELATION_ID


DEFAULT_IDLE_LIMIT_US: Final = 1_000_000
"""What Triton takes for 0."""

_DTYPES: Final = {
    model_config_pb2.TYPE_INT32: Dtype.INT32,
    model_config_pb2.TYPE_INT64: Dtype.INT64,
    model_config_pb2.TYPE_FP32: Dtype.FP32,
    model_config_pb2.TYPE_FP64: Dtype.FP64,
    model_config_pb2.TYPE_STRING: Dtype.BYTES,
}

_NARROW_IDS: Final = (model_config_pb2.TYPE_INT32, model_config_pb2.TYPE_UINT32)


def examine(control: Control, scenario: Scenario, source: str) -> Target:
    """The scenario's model on a server, checked. Raises PreflightError or ScenarioError, never a wire error."""
    try:
        return check(scenario, _config(control, scenario, source), source)
    except ConnectError as error:
        raise PreflightError(
            f"no server can be reached: {error}. Check host and port, or start one with `seqstress serve`"
        ) from error
    except RpcError as error:
        if error.code == UNIMPLEMENTED:
            raise PreflightError(
                f"what answers there speaks gRPC, but not all of the KServe v2 protocol as NVIDIA Triton does: "
                f"{error.message}. Give the gRPC address of a Triton server"
            ) from error
        raise PreflightError(f"the server cannot tell about itself: {error}. Look at its log") from error


def check(scenario: Scenario, config: Any, source: str) -> Target:
    """What the model's config (``inference.ModelConfig``) makes of the scenario; ``source`` is its file.

    Raises ScenarioError with every contradiction between the two that was found.
    """
    if not config.HasField("sequence_batching"):
        raise ScenarioError(
            source,
            "model.name",
            f"model {config.name!r} has no sequence batching, so it knows no sequences",
            "Name a model whose config has a section sequence_batching",
        )
    found = [*_contradictions(scenario, config)]
    if found:
        raise as_one([ScenarioError(source, *contradiction) for contradiction in found])
    return _target(scenario, config)


def slots_of(config: Any) -> int:
    """How many sequences the model holds at once.

    Direct: the batch size of each instance. Oldest: ``max_candidate_sequences`` of each instance, by default
    the batch size. Each counted as at least 1 (batch size 0 means no batch dimension). Seen on Triton 2.51 by
    holding sequences open.
    """
    batching = config.sequence_batching
    per_instance: int = max(1, config.max_batch_size)
    if batching.WhichOneof("strategy_choice") == "oldest" and batching.oldest.max_candidate_sequences > 0:
        per_instance = batching.oldest.max_candidate_sequences
    # A group for GPUs has `count` instances on each of them.
    instances: int = sum(max(1, group.count) * max(1, len(group.gpus)) for group in config.instance_group)
    return per_instance * max(1, instances)


def idle_limit_us_of(config: Any) -> int:
    """After how many microseconds without a request Triton drops a sequence."""
    return int(config.sequence_batching.max_sequence_idle_microseconds) or DEFAULT_IDLE_LIMIT_US


def _config(control: Control, scenario: Scenario, source: str) -> Any:
    """The model's config, or the reason why there is none."""
    if not control.server_live():
        raise PreflightError("the server says that it is not live. Wait until it has started, or look at its log")
    name, version = scenario.model.name, scenario.model.version
    try:
        config = control.model_config(name, version)
    except RpcError as error:
        if error.code == UNIMPLEMENTED:
            facts = control.server_metadata()
            raise PreflightError(
                f"the server ({facts.name} {facts.version}) does not tell model configs, so it is not NVIDIA Triton "
                "and has no sequence batcher. Give the gRPC address of a Triton server"
            ) from error
        raise ScenarioError(source, *_why_no_model(control, name, version, error)) from error
    if not control.model_ready(name, version):
        raise ScenarioError(source, *_why_no_model(control, name, version, None))
    return config


def _why_no_model(control: Control, name: str, version: str, error: RpcError | None) -> Contradiction:
    index = control.repository_index()
    entries = [entry for entry in index if entry.name == name]
    if not entries:
        known = sorted({entry.name for entry in index})
        return Contradiction("model.name", f"the server has no model {name!r}", suggestion(name, known))
    versions = sorted({entry.version for entry in entries if entry.version})
    if version and versions and version not in versions:
        problem = f"the server has no version {version!r} of model {name!r}"
        return Contradiction("model.version", problem, suggestion(version, versions))
    asked = f"model {name!r}" + (f" version {version}" if version else "")
    states = "; ".join(
        f"version {entry.version or '?'} is {entry.state or 'not loaded'}"
        + (f" ({entry.reason})" if entry.reason else "")
        for entry in entries
    )
    told = f": {error.message}" if error else ""
    return Contradiction(
        "model.name",
        f"{asked} is not ready{told}. The server says: {states}",
        "Load it, name another one, or look at the server's log",
    )


def _contradictions(scenario: Scenario, config: Any) -> Iterator[Contradiction]:
    inputs = [tensor for tensor in config.input if not tensor.optional]
    if len(inputs) > 1:
        names = ", ".join(tensor.name for tensor in inputs)
        yield Contradiction(
            "model.name", f"the model needs {len(inputs)} inputs ({names}) at once", "Name a model with one input"
        )
    yield from _tensor("input", scenario.model.input, config.input)
    yield from _tensor("output", scenario.model.output, config.output)
    yield from _shape(scenario, config)
    yield from _dtypes(scenario, config)
    yield from _sequences(scenario, config)


def _tensor(kind: str, wanted: str | None, tensors: Sequence[Any]) -> Iterator[Contradiction]:
    key = f"model.{kind}"
    names = [tensor.name for tensor in tensors]
    if _chosen(wanted, tensors) is not None:
        return
    if wanted is not None:
        yield Contradiction(key, f"the model has no {kind} {wanted!r}", suggestion(wanted, names))
    else:
        remedy = f"Name one of {', '.join(names)}" if names else "Name a model that has one"
        yield Contradiction(key, f"the model has {len(names)} {kind}s", remedy)


def _shape(scenario: Scenario, config: Any) -> Iterator[Contradiction]:
    wanted = scenario.model.shape
    tensors = _chosen(scenario.model.input, config.input), _chosen(scenario.model.output, config.output)
    for tensor in tensors:
        if tensor is None or wanted is None or _fits(wanted, tensor.dims):
            continue
        yield Contradiction(
            "model.shape",
            f"{list(wanted)} does not fit the tensor {tensor.name!r}, which has dims {list(tensor.dims)}",
            "Leave shape out to take the model's; the batch dimension never belongs into it",
        )
        return


def _fits(shape: tuple[int, ...], dims: Sequence[int]) -> bool:
    return len(shape) == len(dims) and all(dim in (-1, size) for dim, size in zip(dims, shape, strict=True))


def _dtypes(scenario: Scenario, config: Any) -> Iterator[Contradiction]:
    source, sink = _chosen(scenario.model.input, config.input), _chosen(scenario.model.output, config.output)
    if source is None or sink is None:
        return
    key = "model.dtype"
    unknown = [tensor for tensor in (source, sink) if tensor.data_type not in _DTYPES]
    if unknown:
        told = " and ".join(f"{tensor.name!r} is {_type_name(tensor)}" for tensor in unknown)
        known = ", ".join(dtype.value for dtype in Dtype)
        yield Contradiction(key, f"{told}, which no oracle covers", f"Name a model of one of {known}")
        return
    dtype, wanted = _DTYPES[source.data_type], scenario.model.dtype
    if source.data_type != sink.data_type:
        yield Contradiction(
            key,
            f"the input is {_type_name(source)} and the output {_type_name(sink)}",
            "An accumulator answers in the datatype that it is given: name tensors that agree",
        )
    elif wanted is not None and wanted is not dtype:
        yield Contradiction(
            key, f"is {wanted.value}, but the model's is {dtype.value}", f"Set it to {dtype.value}, or leave it out"
        )
    else:
        problem = unfit_values(scenario.sequence, dtype, scenario.tolerance)
        if problem:
            yield Contradiction("sequence.value", problem, VALUE_REMEDY)
        if scenario.tolerance and dtype not in FLOATS:
            yield Contradiction("tolerance", f"the model's {dtype.value} is exact", "Leave it out for this model")


def _sequences(scenario: Scenario, config: Any) -> Iterator[Contradiction]:
    idle_us, slots = idle_limit_us_of(config), slots_of(config)
    wanted_s, wanted_slots = scenario.model.idle_limit_s, scenario.model.slots
    if wanted_s is not None and round(wanted_s * 1e6) != idle_us:
        yield Contradiction(
            "model.idle_limit_s",
            f"is {wanted_s:g}, but the model drops idle sequences after {idle_us / 1e6:g} s",
            f"Set it to {idle_us / 1e6:g}, leave it out, or change the model's max_sequence_idle_microseconds",
        )
    if wanted_slots not in (None, slots):
        yield Contradiction(
            "model.slots",
            f"is {wanted_slots}, but the model's config gives {slots}",
            f"Set it to {slots}, leave it out, or change the model's max_batch_size or instance_group",
        )
    yield from think_time_beyond(scenario, idle_us / 1e6)
    corrid = _corrid_control(config)
    if corrid is not None and corrid.data_type == model_config_pb2.TYPE_STRING:
        yield Contradiction(
            "model.name",
            "the model takes its correlation ID as text (control CORRID of TYPE_STRING), and ours are numbers",
            "Name a model whose CORRID is TYPE_UINT64",
        )


def _target(scenario: Scenario, config: Any) -> Target:
    batch = (1,) if config.max_batch_size > 0 else ()
    shape = scenario.model.shape

    def spec(tensor: Any) -> TensorSpec:
        dims = shape or tuple(max(1, dim) for dim in tensor.dims)
        return TensorSpec(tensor.name, _DTYPES[tensor.data_type], batch + dims)

    binding = Binding(
        model=scenario.model.name,
        version=scenario.model.version,
        input=spec(_chosen(scenario.model.input, config.input)),
        output=spec(_chosen(scenario.model.output, config.output)),
        decoupled=config.model_transaction_policy.decoupled,
    )
    is_oldest = config.sequence_batching.WhichOneof("strategy_choice") == "oldest"
    strategy = Strategy.OLDEST if is_oldest else Strategy.DIRECT
    return Target(
        binding=binding,
        slots=slots_of(config),
        idle_limit_ns=idle_limit_us_of(config) * 1000,
        strategy=strategy,
        warnings=tuple(_warnings(scenario, config, strategy)),
    )


def _warnings(scenario: Scenario, config: Any, strategy: Strategy) -> Iterator[str]:
    if strategy is Strategy.OLDEST and scenario.id_reuse is IdReuse.AT_ONCE:
        yield (
            f"model {config.name!r} has strategy oldest, so it cannot see the slot and must keep its state by "
            "correlation ID; with `id_reuse: at_once` the second of two sequences with one ID can run beside the tail "
            "of the first, and such a model then mixes the two. Use `id_reuse: after_answer`, unless that is the test"
        )
    corrid = _corrid_control(config)
    if corrid is not None and corrid.data_type in _NARROW_IDS and scenario.ids.layout is not IdLayout.DENSE:
        yield (
            f"model {config.name!r} sees 32 bits of each correlation ID, and those of the layout "
            f"{scenario.ids.layout.value!r} may agree in these. Use `ids: {{layout: dense}}`, unless that is the test"
        )


def _chosen(wanted: str | None, tensors: Sequence[Any]) -> Any:
    """The tensor of that name, or the only one where none is named."""
    if wanted is None:
        return tensors[0] if len(tensors) == 1 else None
    return next((tensor for tensor in tensors if tensor.name == wanted), None)


def _corrid_control(config: Any) -> Any:
    wanted = model_config_pb2.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID
    for control_input in config.sequence_batching.control_input:
        for control in control_input.control:
            if control.kind == wanted:
                return control
    return None


def _type_name(tensor: Any) -> str:
    return str(model_config_pb2.DataType.Name(tensor.data_type))
