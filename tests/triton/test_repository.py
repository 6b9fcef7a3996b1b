"""The model repository: what Triton reads in it, by Triton's own schema."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from seqstress.errors import PreflightError
from seqstress.protocol import Dtype
from seqstress.triton.repository import (
    ACCUMULATOR,
    MODELS,
    ModelSpec,
    Strategy,
    config_pbtxt,
    require_servable,
    servable_models,
    specs_named,
    write_repository,
)


def parsed(spec: ModelSpec) -> model_config_pb2.ModelConfig:
    return text_format.Parse(config_pbtxt(spec), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_every_configuration_says_what_its_spec_says(spec: ModelSpec) -> None:
    config = parsed(spec)
    batching = config.sequence_batching
    assert (config.name, config.backend, config.max_batch_size) == (spec.name, "python", spec.max_batch_size)
    assert config.instance_group[0].count == spec.instances
    assert batching.max_sequence_idle_microseconds == spec.idle_limit_us
    assert batching.WhichOneof("strategy_choice") == spec.strategy.value
    assert {control.name for control in batching.control_input} == {"START", "READY", "END", "CORRID"}
    assert [list(tensor.dims) for tensor in (config.input[0], config.output[0])] == [[1], [1]]
    assert config.input[0].data_type == config.output[0].data_type
    assert int(config.parameters["execute_delay_us"].string_value) == spec.execute_delay_us


def test_state_is_kept_per_slot_only_where_the_strategy_shows_the_slot() -> None:
    keys = {name: parsed(spec).parameters["state_key"].string_value for name, spec in MODELS.items()}
    assert {name for name, key in keys.items() if key == "correlation_id"} == {"oldest", "oldest_ordered"}
    assert set(keys.values()) == {"slot", "correlation_id"}


def test_the_seeds_layouts_split_four_slots_over_instances() -> None:
    layouts = [MODELS[name] for name in ("l0_1x4", "l0_2x2", "l0_4x1")]
    assert [(spec.instances, spec.max_batch_size) for spec in layouts] == [(1, 4), (2, 2), (4, 1)]
    assert {(spec.slots, spec.idle_limit_us, spec.execute_delay_us) for spec in layouts} == {(4, 1_000_000, 3_000)}


def test_every_datatype_has_a_model() -> None:
    assert {spec.dtype for spec in MODELS.values()} == set(Dtype)


@pytest.mark.parametrize(
    ("spec", "slots"),
    [
        (ModelSpec("m", max_batch_size=8), 8),
        (ModelSpec("m", max_batch_size=4, instances=2), 8),
        (ModelSpec("m", max_batch_size=0, instances=2), 2),
        (ModelSpec("m", strategy=Strategy.OLDEST, max_batch_size=4), 4),
        (ModelSpec("m", strategy=Strategy.OLDEST, max_batch_size=0), 1),
        (ModelSpec("m", strategy=Strategy.OLDEST, max_candidate_sequences=2, instances=3), 6),
    ],
)
def test_slots_follow_from_batch_size_candidates_and_instances(spec: ModelSpec, slots: int) -> None:
    assert spec.slots == slots


def test_a_model_without_batching_has_no_batch_dimension() -> None:
    assert MODELS["nobatch"].input_shape == (1,)
    assert MODELS["direct"].input_shape == (1, 1)


def test_the_oldest_strategys_fields_are_refused_on_direct() -> None:
    with pytest.raises(ValueError, match="oldest strategy"):
        ModelSpec("m", preserve_ordering=True)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert [spec.name for spec in specs_named(["oldest", "int64"])] == ["oldest", "int64"]
    with pytest.raises(PreflightError, match=r"'nope'.*Known: l0_1x4, "):
        specs_named(["direct", "nope"])


def test_a_release_without_preserve_ordering_is_not_asked_for_it() -> None:
    assert "oldest_ordered" not in {spec.name for spec in servable_models("2.36")}
    assert len(servable_models(None)) == len(MODELS)
    with pytest.raises(PreflightError, match=r"Triton 2\.36"):
        require_servable(specs_named(["oldest_ordered"]), "2.36")


def test_the_model_file_lands_beside_its_configuration(tmp_path: Path) -> None:
    write_repository(tmp_path, specs_named(["direct"]))
    assert (tmp_path / "direct" / "config.pbtxt").read_text() == config_pbtxt(MODELS["direct"])
    assert (tmp_path / "direct" / "1" / "model.py").read_bytes() == ACCUMULATOR.read_bytes()
