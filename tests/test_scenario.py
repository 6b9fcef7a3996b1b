"""Scenarios: what is shipped is sound, and every mistake gives one clear line with file, line, key and remedy."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from seqstress.errors import ScenarioError
from seqstress.plan.capacity import estimate
from seqstress.scenario import Scenario, ScenarioListError, load_scenario, parse_scenario, scenario_schema

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))
SCHEMA_FILE = ROOT / "docs" / "scenario.schema.json"

LEAST = "name: x\nmodel: {name: m}\n"


def error_of(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "x.yaml")
    return caught.value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
class TestShipped:
    def test_has_the_name_of_its_file(self, path: Path) -> None:
        assert load_scenario(path).name == path.stem

    def test_validates_against_the_published_schema(self, path: Path) -> None:
        # Through JSON, as keys of YAML may be numbers.
        plain = json.loads(json.dumps(yaml.safe_load(path.read_text())))
        jsonschema.validate(plain, json.loads(SCHEMA_FILE.read_text()))

    def test_allows_no_failing_fate(self, path: Path) -> None:
        assert load_scenario(path).allow == {}

    def test_has_a_description(self, path: Path) -> None:
        assert load_scenario(path).description

    def test_asks_for_no_more_than_the_slots_can_serve(self, path: Path) -> None:
        scenario = load_scenario(path)
        slots, step_s = (4, 0.004) if path.stem == "l0" else (8, 0.002)
        got = estimate(scenario, slots, idle_limit_s=1.0, step_s=step_s)
        assert got.warnings == ()
        assert got.wait_s < scenario.timeout_s / 3

    def test_survives_the_way_over_the_network(self, path: Path) -> None:
        scenario = load_scenario(path)
        again = Scenario.from_plain(json.loads(json.dumps(scenario.to_plain())))
        assert again == scenario
        assert again.digest == scenario.digest


def test_all_five_scenarios_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= {"l0", "smoke", "steady", "lockstep", "paced"}


def test_l0_is_the_seeds_test() -> None:
    l0 = load_scenario(ROOT / "scenarios" / "l0.yaml")
    assert (l0.load.users, l0.load.iterations, l0.model.name, l0.timeout_s) == (8, 200, "l0_1x4", 5.0)
    defaults = parse_scenario(LEAST, "x.yaml")
    assert (l0.contexts, l0.mix, l0.sequence, l0.ids) == (
        defaults.contexts,
        defaults.mix,
        defaults.sequence,
        defaults.ids,
    )


def test_the_published_schema_is_current() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == scenario_schema()


def test_the_digest_tells_any_two_scenarios_apart() -> None:
    texts = [LEAST, LEAST + "timeout_s: 4", LEAST + "description: other", LEAST + "ids: {policy: fresh}"]
    digests = {parse_scenario(text, "x.yaml").digest for text in texts}
    assert len(digests) == 4
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)


def test_what_an_alias_stands_for_is_read_like_any_other_text() -> None:
    values = "{distribution: uniform, low: 0, high: 3}"
    twice = parse_scenario(LEAST + f"sequence: {{value: [&a {values}, *a]}}", "x.yaml")
    assert len(twice.sequence.value_parts) == 2


def test_without_rare_contexts_their_defaults_vanish() -> None:
    scenario = parse_scenario(LEAST + "contexts: {common: 1, rare: 0}", "x.yaml")
    assert (scenario.contexts.rare_share, scenario.mix.rare) == (0, {})
    assert scenario.mix.common == parse_scenario(LEAST, "x.yaml").mix.common
    assert Scenario.from_plain(scenario.to_plain()) == scenario


@pytest.mark.parametrize(
    ("text", "place", "key", "problem", "remedy"),
    [
        # Not a scenario at all
        ("", "x.yaml", "", "empty", "model.name"),
        ("# only a comment\n", "x.yaml", "", "empty", "model.name"),
        ("- a\n", "x.yaml", "", "a list", "name:"),
        ("hello\n", "x.yaml", "", "a single value", "name:"),
        ("name: x\nmodel: [\n", "x.yaml:3", "", "not YAML", "line"),
        ("name: x\nmodel: a: b\n", "x.yaml:2", "", "not YAML", "line"),
        ("name: x\n---\nname: y\n", "x.yaml:2", "", "not YAML", "line"),
        ("name: \x00", "x.yaml", "", "not YAML", "UTF-8"),
        ("name: !!python/name:os.system\n", "x.yaml:1", "", "not YAML", "line"),
        ("? [a]\n: 1\n", "x.yaml:1", "", "not YAML", "line"),
        (LEAST + "x: &a {b: *a}\n", "x.yaml:3", "x.b", "alias of what it is part of", "Write out"),
        (LEAST + "x: &a [{b: [*a]}]\n", "x.yaml:3", "x[0].b[0]", "alias of what it is part of", "Write out"),
        (LEAST + "x: " + "[" * 5000, "x.yaml", "", "nested too deeply", "levels"),
        # Keys
        ("name: x\n", "x.yaml", "model", "missing", "Add"),
        (LEAST + "name: y\n", "x.yaml:3", "name", "twice, first in line 1", "one of the two"),
        (LEAST + "load:\n  users: 1\n  users: 2\n", "x.yaml:5", "load.users", "twice, first in line 4", "one"),
        (LEAST + "pacng: {}\n", "x.yaml:3", "pacng", "no such key", "Did you mean 'pacing'?"),
        (LEAST + "load: {user: 3}", "x.yaml:3", "load.user", "no such key", "Did you mean 'users'? Known: iter"),
        (
            LEAST + "sequence: {length: {distribution: normal, mean: 1, sd: 1, mx: 3}}",
            "x.yaml:3",
            "sequence.length.mx",
            "no such key",
            "Did you mean 'max'?",
        ),
        # Types and ranges
        (LEAST + "load: {users: '8'}", "x.yaml:3", "load.users", "text '8' is not a whole number", "whole number"),
        (LEAST + "load: {users: 1.5}", "x.yaml:3", "load.users", "1.5 is not a whole number", "whole number"),
        (LEAST + "load: {users: true}", "x.yaml:3", "load.users", "true is not a whole number", "whole number"),
        (LEAST + "load: {users: 0}", "x.yaml:3", "load.users", "0 is out of range", "above 0"),
        (LEAST + "load: {users: 1000001}", "x.yaml:3", "load.users", "out of range", "at most 1,000,000"),
        (LEAST + "contexts: {common: 10001}", "x.yaml:3", "contexts.common", "out of range", "at most 10,000"),
        (LEAST + "contexts: {rare: 10001}", "x.yaml:3", "contexts.rare", "out of range", "at most 10,000"),
        (LEAST + "load:\n", "x.yaml:3", "load", "null (nothing)", "keys with values"),
        (LEAST + "exclusive: maybe", "x.yaml:3", "exclusive", "'maybe' is not true or false", "true or false"),
        (LEAST + "timeout_s: 1e3", "x.yaml:3", "timeout_s", "not a number", "1.0e+6"),
        (LEAST + "tolerance: .inf", "x.yaml:3", "tolerance", "finite", "finite"),
        (LEAST + "tolerance: .nan", "x.yaml:3", "tolerance", "finite", "finite"),
        ("name: L 0\nmodel: {name: m}", "x.yaml:1", "name", "other characters", "a-z"),
        ("name: x\nmodel: {name: ''}", "x.yaml:2", "model.name", "empty", "at least one"),
        ("name: x\nmodel: {name: m, dtype: INT23}", "x.yaml:2", "model.dtype", "INT23", "Did you mean 'INT32'?"),
        ("name: x\nmodel: {name: m, shape: [0]}", "x.yaml:2", "model.shape[0]", "out of range", "above 0"),
        (LEAST + "allow: {timeout: 2}", "x.yaml:3", "allow.timeout", "2 is out of range", "at most 1"),
        (LEAST + "sequence: {value: []}", "x.yaml:3", "sequence.value", "is empty", "at least one"),
        (LEAST + "sequence: {value: 3}", "x.yaml:3", "sequence.value", "", "keys with values"),
        # Distributions
        (
            LEAST + "sequence: {length: {distribution: norml}}",
            "x.yaml:3",
            "sequence.length",
            "no distribution 'norml'",
            "Did you mean 'normal'?",
        ),
        (LEAST + "sequence: {length: {mean: 3}}", "x.yaml:3", "sequence.length", "which distribution", "constant, uni"),
        (
            LEAST + "sequence: {length: {distribution: uniform, min: 9, max: 3}}",
            "x.yaml:3",
            "sequence.length.max",
            "max 3 is below min 9",
            "Swap",
        ),
        (
            LEAST + "sequence: {length: {distribution: constant, value: 0}}",
            "x.yaml:3",
            "sequence.length",
            "length 0",
            "at least 1",
        ),
        (
            LEAST + "sequence: {length: {distribution: constant, value: 1000000000}}",
            "x.yaml:3",
            "sequence.length",
            "1000000000 steps",
            "1000000",
        ),
        (
            LEAST + "sequence: {length: {distribution: choice, values: {4: 0}}}",
            "x.yaml:3",
            "sequence.length.values",
            "sum to nothing",
            "above 0",
        ),
        (
            LEAST + "sequence: {value: [{distribution: uniform, low: 4, high: 4}]}",
            "x.yaml:3",
            "sequence.value[0].high",
            "nothing lies",
            "above 4",
        ),
        (
            LEAST + "sequence: {value: [{distribution: extremes, weight: 0}]}",
            "x.yaml:3",
            "sequence.value",
            "sum to nothing",
            "above 0",
        ),
        (
            "name: x\nmodel: {name: m, dtype: INT32}\n"
            "sequence:\n  value: {distribution: uniform, low: 0, high: 5000000000}",
            "x.yaml:4",
            "sequence.value",
            "do not fit into INT32",
            "wider dtype",
        ),
        (
            "name: x\nmodel: {name: m, dtype: FP32}\n",
            "x.yaml",
            "sequence.value",
            "FP32 is not exact",
            "tolerance",
        ),
        # Keys that contradict each other
        (LEAST + "contexts: {common: 0, rare: 0}", "x.yaml:3", "contexts", "no contexts", "at least 1"),
        (LEAST + "contexts: {rare: 0, rare_share: 0.1}", "x.yaml:3", "contexts.rare_share", "rare is 0", "Leave"),
        (LEAST + "contexts: {common: 0}", "x.yaml:3", "contexts.rare_share", "common is 0", "to 1"),
        (
            LEAST + "contexts: {rare: 0}\nmix: {common: {valid: 1}, rare: {valid: 1}}",
            "x.yaml:4",
            "mix.rare",
            "0",
            "Leave",
        ),
        (LEAST + "mix: {common: {valid: 1}}", "x.yaml:3", "mix.rare", "missing", "contexts.rare to 0"),
        (LEAST + "mix: {common: {valid: 0}, rare: {valid: 1}}", "x.yaml:3", "mix.common", "sum to nothing", "above 0"),
        (LEAST + "mix: {common: {}, rare: {valid: 1}}", "x.yaml:3", "mix.common", "sum to nothing", "above 0"),
        (
            LEAST + "mix: {common: {vald: 1}, rare: {valid: 1}}",
            "x.yaml:3",
            "mix.common",
            "no pattern 'vald'",
            "Did you mean 'valid'?",
        ),
        (
            LEAST + "pacing: {think_ms: {distribution: constant, value: 4}}",
            "x.yaml:3",
            "pacing.think_ms",
            "pipelined has no think time",
            "paced",
        ),
        (LEAST + "pacing: {mode: paced}", "x.yaml:3", "pacing.think_ms", "needs a think time", "distribution"),
        (
            "name: x\nmodel: {name: m, idle_limit_s: 0.5}\n"
            "pacing: {mode: paced, think_ms: {distribution: constant, value: 500}}",
            "x.yaml:3",
            "pacing.think_ms",
            "reach the idle limit of 500 ms",
            "below",
        ),
        ("name: x\nmodel: {name: m, dtype: INT32}\ntolerance: 0.1", "x.yaml:3", "tolerance", "exact", "Leave"),
        ("name: x\nmodel: {name: m, oracle: acumulator}", "x.yaml:2", "model.oracle", "no oracle", "'accumulator'"),
        (LEAST + "allow: {time_out: 0.1}", "x.yaml:3", "allow", "'time_out'", "Did you mean 'timeout'?"),
        (LEAST + "allow: {ok: 0.1}", "x.yaml:3", "allow", "'ok'", "Known"),
        (
            LEAST + "thresholds: [{metric: steps_per_s}]",
            "x.yaml:3",
            "thresholds[0]",
            "one limit",
            "at_most or at_least",
        ),
        (
            LEAST + "thresholds: [{metric: steps_per_s, at_least: 1, pattern: vlid}]",
            "x.yaml:3",
            "thresholds[0].pattern",
            "no pattern 'vlid'",
            "Did you mean 'valid'?",
        ),
    ],
)
def test_a_mistake_names_file_key_and_remedy(text: str, place: str, key: str, problem: str, remedy: str) -> None:
    error = error_of(text)
    assert not isinstance(error, ScenarioListError), str(error)
    assert (error.source, error.key) == (place, key)
    assert problem in error.problem
    assert remedy in error.remedy
    assert len(str(error).splitlines()) == 1


def test_several_mistakes_are_told_together_one_line_each() -> None:
    error = error_of("name: x\nmodel: {name: m, dtyp: INT32}\nload: {users: -1}\ntimeout_s: soon\n")
    assert isinstance(error, ScenarioListError)
    assert [each.key for each in error.errors] == ["model.dtyp", "load.users", "timeout_s"]
    assert len(str(error).splitlines()) == 3
    assert error.key == "model.dtyp"


def test_several_contradictions_are_told_together() -> None:
    error = error_of(LEAST + "contexts: {rare: 0, rare_share: 1}\npacing: {mode: paced}\nallow: {bad: 0.5}")
    assert isinstance(error, ScenarioListError)
    assert [each.key for each in error.errors] == ["contexts.rare_share", "pacing.think_ms", "allow"]


def test_a_wrong_item_of_a_list_is_told_once() -> None:
    error = error_of(LEAST + "sequence: {value: [{distribution: uniform, low: 1, hgh: 2}]}")
    assert isinstance(error, ScenarioListError)
    assert {each.key for each in error.errors} == {"sequence.value[0].high", "sequence.value[0].hgh"}


def test_a_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "steady.yaml").write_text(LEAST)
    with pytest.raises(ScenarioError, match=r"stedy\.yaml: there is no such file\. Did you mean 'steady\.yaml'\?"):
        load_scenario(tmp_path / "stedy.yaml")


def test_a_file_in_a_missing_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="there is no such file"):
        load_scenario(tmp_path / "nowhere" / "x.yaml")


def test_a_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path)


def test_bytes_that_are_no_text_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        load_scenario(tmp_path / "x.yaml")


def test_defaults_are_the_documented_ones() -> None:
    plain = parse_scenario(LEAST, "x.yaml").to_plain()
    assert plain["load"] == {"users": 8, "spawn_rate": 8, "iterations": None, "run_time_s": None}
    assert plain["contexts"] == {"common": 2, "rare": 8, "rare_share": 0.1}
    assert plain["ids"] == {"policy": "fixed", "layout": "packed"}
    assert (plain["id_reuse"], plain["stream"], plain["timeout_s"]) == ("at_once", "per_context", 5.0)
    assert (plain["exclusive"], plain["allow"], plain["thresholds"]) == (True, {}, [])
