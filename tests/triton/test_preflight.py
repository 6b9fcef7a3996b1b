"""Preflight: every way in which a model contradicts a scenario is one clear message, before any load."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from seqstress.errors import ConnectError, InputError, PreflightError, RpcError, ScenarioError
from seqstress.protocol import Binding, Dtype, TensorSpec
from seqstress.scenario import Scenario, ScenarioListError, load_scenario, parse_scenario
from seqstress.triton.control import NOT_FOUND, UNAVAILABLE, UNIMPLEMENTED, Control
from seqstress.triton.preflight import StateKey, Strategy, check, examine, slots_of
from seqstress.triton.server import TritonServer
from seqstress.wire.transport import Http2Transport
from tests.triton.test_control import TableTransport

SCENARIOS = Path(__file__).parents[2] / "scenarios"

MODEL = """
name: "m"
max_batch_size: 4
input [{ name: "INPUT" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "OUTPUT" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ count: 2 kind: KIND_CPU }]
sequence_batching {
  direct {}
  max_sequence_idle_microseconds: 2000000
  control_input [{
    name: "CORRID" control [{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }]
  }]
}
"""


def config(*changes: tuple[str, str]) -> Any:
    text = MODEL
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def scenario(model: str = "", rest: str = "") -> Scenario:
    return parse_scenario(f"name: x\nmodel: {{name: m{', ' if model else ''}{model}}}\n{rest}", "x.yaml")


def test_a_model_that_fits_becomes_a_target() -> None:
    target = check(scenario(), config(), "x.yaml")
    tensor = {"dtype": Dtype.INT32, "shape": (1, 1)}
    assert target.binding == Binding(
        model="m",
        version="",
        input=TensorSpec("INPUT", **tensor),
        output=TensorSpec("OUTPUT", **tensor),
        decoupled=False,
    )
    assert (target.slots, target.idle_limit_ns) == (8, 2_000_000_000)
    assert (target.strategy, target.state_key, target.warnings) == (Strategy.DIRECT, StateKey.SLOT, ())


def test_what_the_scenario_states_rightly_is_no_contradiction() -> None:
    stated = "input: INPUT, output: OUTPUT, dtype: INT32, shape: [1], slots: 8, idle_limit_s: 2"
    assert check(scenario(stated), config(), "x.yaml") == check(scenario(), config(), "x.yaml")


def test_without_batching_the_shape_has_no_batch_dimension() -> None:
    target = check(scenario(), config(("max_batch_size: 4", "max_batch_size: 0")), "x.yaml")
    assert (target.binding.input.shape, target.slots) == ((1,), 2)


def test_variable_dimensions_become_one_or_what_the_scenario_says() -> None:
    variable = config(("dims: [1]", "dims: [-1, 3]"))
    assert check(scenario(), variable, "x.yaml").binding.input.shape == (1, 1, 3)
    assert check(scenario("shape: [7, 3]"), variable, "x.yaml").binding.output.shape == (1, 7, 3)


def test_an_idle_limit_of_zero_is_tritons_default() -> None:
    zero = config(("max_sequence_idle_microseconds: 2000000", ""))
    assert check(scenario(), zero, "x.yaml").idle_limit_ns == 1_000_000_000


def test_decoupled_and_strings_are_seen() -> None:
    decoupled = config(
        ("TYPE_INT32", "TYPE_STRING"),
        ("max_batch_size: 4", "max_batch_size: 4 model_transaction_policy { decoupled: true }"),
    )
    target = check(scenario(), decoupled, "x.yaml")
    assert target.decoupled
    assert target.binding.output.dtype is Dtype.BYTES


def test_optional_inputs_need_not_be_sent() -> None:
    before, after = SECOND_INPUT
    with_optional = config((before, after.replace('"X"', '"X" optional: true')))
    assert check(scenario("input: INPUT"), with_optional, "x.yaml").binding.input.name == "INPUT"


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ([], 8),
        ([("direct {}", "oldest { max_candidate_sequences: 16 }")], 32),
        ([("direct {}", "oldest {}")], 8),
        ([("direct {}", "oldest {}"), ("max_batch_size: 4", "max_batch_size: 0")], 2),
        ([("direct {}", "")], 8),
        ([("instance_group [{ count: 2 kind: KIND_CPU }]", "")], 4),
        ([("kind: KIND_CPU", "kind: KIND_GPU gpus: [0, 1, 2]")], 24),
        ([("[{ count: 2 kind: KIND_CPU }]", "[{ count: 2 kind: KIND_CPU }, { count: 3 kind: KIND_CPU }]")], 20),
    ],
)
def test_slots_follow_from_batch_size_candidates_and_instances(changes: Iterable[tuple[str, str]], slots: int) -> None:
    assert slots_of(config(*changes)) == slots


SECOND_INPUT = (
    '{ name: "INPUT" data_type: TYPE_INT32 dims: [1] }',
    '{ name: "INPUT" data_type: TYPE_INT32 dims: [1] }, { name: "X" data_type: TYPE_INT32 dims: [1] }',
)
SECOND_OUTPUT = (
    '{ name: "OUTPUT" data_type: TYPE_INT32 dims: [1] }',
    '{ name: "OUTPUT" data_type: TYPE_INT32 dims: [1] }, { name: "Y" data_type: TYPE_INT32 dims: [1] }',
)
OUTPUT_INT64 = ('"OUTPUT" data_type: TYPE_INT32', '"OUTPUT" data_type: TYPE_INT64')
INPUT_OF_TWO_DIMS = (
    '"INPUT" data_type: TYPE_INT32 dims: [1]',
    '"INPUT" data_type: TYPE_INT32 dims: [1, 1]',
)
BIG = "sequence: {value: {distribution: uniform, low: 0, high: 5000000000}}"
PACED = "pacing: {mode: paced, think_ms: {distribution: uniform, min: 1, max: 3000}}"


@pytest.mark.parametrize(
    ("model", "rest", "changes", "key", "problem", "remedy"),
    [
        ("input: INPT", "", [], "model.input", "no input 'INPT'", "Did you mean 'INPUT'?"),
        ("output: RESULT", "", [], "model.output", "no output 'RESULT'", "Known: OUTPUT"),
        ("input: INPUT", "", [SECOND_INPUT], "model.name", "needs 2 inputs (INPUT, X)", "one input"),
        ("", "", [SECOND_OUTPUT], "model.output", "2 outputs", "OUTPUT, Y"),
        ("dtype: INT64", "", [], "model.dtype", "is INT64, but the model's is INT32", "INT32"),
        ("", "", [("TYPE_INT32", "TYPE_FP16")], "model.dtype", "TYPE_FP16, which no oracle covers", "FP32"),
        ("", "", [OUTPUT_INT64], "model.dtype", "INT64", "agree"),
        ("shape: [2]", "", [], "model.shape", "[2] does not fit the tensor 'INPUT', which has dims [1]", "Leave"),
        ("shape: [1, 1]", "", [INPUT_OF_TWO_DIMS], "model.shape", "tensor 'OUTPUT'", "batch dimension"),
        ("slots: 4", "", [], "model.slots", "is 4, but the model's config gives 8", "Set it to 8"),
        ("idle_limit_s: 1", "", [], "model.idle_limit_s", "after 2 s", "Set it to 2"),
        ("", PACED, [], "pacing.think_ms", "reach the idle limit of 2000 ms", "below"),
        ("", "", [("TYPE_INT32", "TYPE_FP32")], "sequence.value", "FP32 is not exact", "tolerance"),
        ("", BIG, [], "sequence.value", "INT32", "wider"),
        ("", "tolerance: 0.5", [], "tolerance", "INT32 is exact", "Leave"),
        ("", "", [("TYPE_UINT64", "TYPE_STRING")], "model.name", "correlation ID as text", "TYPE_UINT64"),
    ],
)  # fmt: skip
def test_a_contradiction_names_file_key_and_remedy(
    model: str, rest: str, changes: list[tuple[str, str]], key: str, problem: str, remedy: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        check(scenario(model, rest), config(*changes), "x.yaml")
    error = caught.value
    assert not isinstance(error, ScenarioListError), str(error)
    assert (error.source, error.key) == ("x.yaml", key)
    assert problem in error.problem
    assert remedy in error.remedy


def test_a_model_without_sequence_batching_is_refused() -> None:
    stateless = config()
    stateless.ClearField("sequence_batching")
    with pytest.raises(ScenarioError, match="has no sequence batching"):
        check(scenario(), stateless, "x.yaml")


def test_several_contradictions_are_told_together() -> None:
    with pytest.raises(ScenarioListError) as caught:
        check(scenario("dtype: FP32, slots: 3", "tolerance: 1.0"), config(), "x.yaml")
    assert [error.key for error in caught.value.errors] == ["model.dtype", "model.slots"]


@pytest.mark.parametrize(("reuse", "warned"), [("at_once", True), ("after_answer", False)])
def test_reuse_at_once_on_a_model_that_cannot_see_the_slot_is_warned_of(reuse: str, warned: bool) -> None:
    target = check(scenario("", f"id_reuse: {reuse}"), config(("direct {}", "oldest {}")), "x.yaml")
    assert (target.strategy, target.state_key) == (Strategy.OLDEST, StateKey.CORRELATION_ID)
    assert any("after_answer" in warning for warning in target.warnings) == warned


@pytest.mark.parametrize(("layout", "warned"), [("packed", True), ("dense", False)])
def test_ids_wider_than_the_models_control_are_warned_of(layout: str, warned: bool) -> None:
    narrow = config(("TYPE_UINT64", "TYPE_UINT32"))
    target = check(scenario("", f"ids: {{layout: {layout}}}"), narrow, "x.yaml")
    assert any("32 bits" in warning for warning in target.warnings) == warned


def server(**answers: Any) -> Control:
    index = service_pb2.RepositoryIndexResponse()
    index.models.add(name="direct", version="1", state="READY")
    index.models.add(name="oldest", version="1", state="UNAVAILABLE", reason="unloaded")
    usual = {
        "ServerLive": service_pb2.ServerLiveResponse(live=True),
        "ModelReady": service_pb2.ModelReadyResponse(ready=True),
        "ModelConfig": service_pb2.ModelConfigResponse(config=config()),
        "RepositoryIndex": index,
        "ServerMetadata": service_pb2.ServerMetadataResponse(name="mlserver", version="1.7.1"),
    }
    return Control(TableTransport(**{**usual, **answers}))


def named(model: str) -> Scenario:
    return parse_scenario(f"name: x\nmodel: {{name: {model}}}", "x.yaml")


def refusal(control: Control, model: str) -> str:
    with pytest.raises(PreflightError) as caught:
        examine(control, named(model), "x.yaml")
    assert isinstance(caught.value, InputError)
    return str(caught.value)


def test_a_healthy_model_is_examined() -> None:
    assert examine(server(), named("m"), "x.yaml") == check(named("m"), config(), "x.yaml")


def mistake(control: Control, model: str, version: str = "") -> ScenarioError:
    story = parse_scenario(f"name: x\nmodel: {{name: {model}, version: '{version}'}}", "x.yaml")
    with pytest.raises(ScenarioError) as caught:
        examine(control, story, "x.yaml")
    assert caught.value.source == "x.yaml"
    return caught.value


def test_an_unknown_model_lists_those_of_the_server() -> None:
    unknown = RpcError(NOT_FOUND, "Request for unknown model: 'dirct' is not found")
    assert str(mistake(server(ModelConfig=unknown), "dirct")) == (
        "x.yaml: model.name: the server has no model 'dirct'. Did you mean 'direct'? Known: direct, oldest"
    )


def test_an_unknown_version_lists_those_of_the_model() -> None:
    unknown = RpcError(NOT_FOUND, "Request for unknown model: 'direct' version 7 is not found")
    error = mistake(server(ModelConfig=unknown), "direct", "7")
    assert (error.key, error.remedy) == ("model.version", "Known: 1")
    assert "no version '7' of model 'direct'" in error.problem


def test_an_unloaded_model_says_what_the_server_says_of_it() -> None:
    unloaded = RpcError(UNAVAILABLE, "has no available versions")
    error = mistake(server(ModelConfig=unloaded), "oldest")
    assert error.key == "model.name"
    assert "model 'oldest' is not ready: has no available versions" in error.problem
    assert "version 1 is UNAVAILABLE (unloaded)" in error.problem
    assert "Load it" in error.remedy


def test_a_model_that_is_not_ready_is_refused() -> None:
    error = mistake(server(ModelReady=service_pb2.ModelReadyResponse(ready=False)), "direct")
    assert "model 'direct' is not ready" in error.problem


def test_a_server_that_is_not_triton_is_named() -> None:
    text = refusal(server(ModelConfig=RpcError(UNIMPLEMENTED, "Method not found")), "m")
    assert "mlserver 1.7.1" in text
    assert "not NVIDIA Triton" in text


def test_a_server_that_does_not_even_tell_its_liveness_is_told_about() -> None:
    text = refusal(server(ServerLive=RpcError(UNIMPLEMENTED, "unknown service")), "m")
    assert "unknown service" in text
    assert "KServe" in text


def test_no_server_at_all_says_how_to_start_one() -> None:
    text = refusal(server(ServerLive=ConnectError("127.0.0.1:8001: connection refused")), "m")
    assert "127.0.0.1:8001: connection refused" in text
    assert "seqstress serve" in text


def test_a_server_that_is_not_live_is_refused() -> None:
    assert "not live" in refusal(server(ServerLive=service_pb2.ServerLiveResponse(live=False)), "m")


@pytest.fixture(scope="module")
def real_control(triton_server: TritonServer) -> Iterator[Control]:
    with closing(Http2Transport(triton_server.grpc_target, tls=None, metadata=(), connect_timeout_s=5)) as transport:
        yield Control(transport)


@pytest.mark.real
@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_scenario_fits_the_embedded_server(path: Path, real_control: Control) -> None:
    target = examine(real_control, load_scenario(path), str(path))
    assert target.slots == (4 if path.stem == "l0" else 8)
    assert target.warnings == ()


@pytest.mark.real
def test_triton_says_which_models_it_has(real_control: Control) -> None:
    error = mistake(real_control, "int31")
    assert error.key == "model.name"
    assert "Did you mean 'int32'?" in error.remedy


@pytest.mark.real
def test_tritons_batches_add_up_to_its_executions(real_control: Control) -> None:
    statistics = real_control.model_statistics("direct")
    assert statistics.execution_count == sum(executions for _, executions in statistics.batches)
