"""The reports of a good, a bad and a hostile run: the figures, the schema, the files, the escaping."""

import json
import os
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from seqstress.metrics.histogram import Histogram
from seqstress.plan.capacity import estimate
from seqstress.protocol import Cause, Expect, Fate, Reply, ReplyKind, Step, Stray
from seqstress.report.figures import duration, number, percent, tame
from seqstress.report.files import run_directory, write_atomically, write_run
from seqstress.report.html import chart_of, render_html
from seqstress.report.summary import summarize, summary_schema
from seqstress.report.text import print_report, render_text
from seqstress.report.view import RunFacts, RunView
from seqstress.scenario import parse_scenario
from seqstress.verdict.audit import ModelStatistics, audit
from seqstress.verdict.failure import Exchange, Failure
from seqstress.verdict.ledger import Ledger, SequenceEnd
from seqstress.verdict.rules import verdict
from seqstress.verdict.snapshot import WorkerSnapshot

SCHEMA = Path(__file__).parents[2] / "docs" / "summary.schema.json"
SCENARIO = parse_scenario("name: story\nmodel: {name: l0_1x4}\nallow: {expired: 0.5}\n", "story.yaml")
HOSTILE = "</script><script>alert(1)</script>\x1b[2J\u202e[bold]x[/bold] {{ 7*7 }}\ud800"


def ledger_of(fates):
    ledger = Ledger()
    account = ledger.pattern("valid")
    for fate, count in fates.items():
        for index in range(count):
            us = 900 + 37 * index
            account.plan(1, 1)
            account.sent(1)
            if fate is Fate.EXPIRED:
                account.expired(Cause.IDLE, us, us)
            else:
                account.answered(fate, us, us)
            ledger.answer(Reply("r", ReplyKind.VALUE, 1, "", "m", True))
            account.sequence_over(SequenceEnd.FINISHED if fate is Fate.OK else SequenceEnd.FAILED, us * 10)
    return ledger


def failure(text):
    step = Step(True, False, 3, Expect.ANSWERS, (3,))
    row = Exchange(0, 0, step, text, 0, 1, 900, (text,), Fate.WRONG_RESULT)
    where = {"worker": 0, "user": 1, "context": 2, "plan": 3, "sequence": 0, "step": 0}
    return Failure(
        fate=Fate.WRONG_RESULT,
        stray=None,
        cause=None,
        pattern="valid",
        seed_path=(1, 2),
        correlation_id=text,
        request_id=text,
        expected="3",
        observed=text,
        message=text,
        at_epoch_s=1_800_000_000.0,
        exchange=(row,),
        **where,
    )


def view_of(fates, failures=(), final=True):
    ledger = ledger_of(fates)
    for record in failures:
        ledger.add_failure(record)
    answered = ledger.answered
    zero = ModelStatistics(0, 0, 0, 0, 0, 0, ())
    after = ModelStatistics(answered, 0, answered, answered, answered, answered, ((1, answered),))
    found = audit(ledger, zero, after)
    lag = Histogram()
    lag.record(150)
    worker = WorkerSnapshot("run-1", 0, "elsewhere", 7, final, ledger, lag, 0.002, 10.0, 8)
    judged = verdict(ledger, SCENARIO, found, duration_s=10.0, lag=lag)
    facts = RunFacts(
        run_id="run-1",
        started_epoch_s=1_800_000_000.0,
        duration_s=10.0,
        scenario=SCENARIO,
        seed=42,
        target="127.0.0.1:8001",
        transport="http2",
        users=8,
        server="triton 2.51.0",
        workers=(worker,),
        master_cpu_s=0.001,
        ledger=ledger,
        audit=found,
        capacity=estimate(SCENARIO, 4, 1.0),
        verdict=judged,
        command="seqstress run story.yaml --seed 42",
    )
    return RunView(facts)


@pytest.fixture
def good():
    return view_of({Fate.OK: 10})


@pytest.fixture
def bad():
    return view_of({Fate.OK: 7, Fate.EXPIRED: 1, Fate.WRONG_RESULT: 2}, [failure("9")])


@pytest.fixture
def hostile():
    return view_of({Fate.OK: 7, Fate.WRONG_RESULT: 2}, [failure(HOSTILE)])


def test_the_published_schema_is_the_one_of_the_code():
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == summary_schema()


def test_every_summary_fits_the_schema(good, bad, hostile):
    validator = jsonschema.Draft202012Validator(summary_schema())
    for view in (good, bad, hostile, view_of({}), view_of({Fate.OK: 1}, final=False)):
        validator.validate(summarize(view))


def test_the_schema_refuses_a_summary_without_its_account(good):
    summary = summarize(good)
    del summary["steps"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(summary, summary_schema())


def test_the_summary_says_what_was_counted(bad):
    summary = summarize(bad)
    assert (summary["verdict"], summary["exit_code"]) == ("FAIL", 1)
    assert summary["steps"] == {"planned": 10, "sent": 10, "not_sent": 0, "answered": 10, "per_s": 1.0}
    assert summary["outcomes"] == {fate.label: 0 for fate in Fate} | {"ok": 7, "expired": 1, "wrong_result": 2}
    assert sum(summary["outcomes"].values()) == summary["steps"]["sent"]
    assert summary["strays"] == {stray.label: 0 for stray in Stray}
    assert summary["expired_causes"] == {"idle": 1}
    assert summary["audit"]["equal"] is True
    assert summary["client"]["cpu_us_per_step"] == 300.0
    assert summary["latency_us"]["valid"]["step"]["count"] == 10
    assert summary["latency_us"]["all"]["sequence"]["max"] == 11220
    assert summary["allowances"] == [{"label": "expired", "share": 0.5, "allowed": 5, "used": 1}]


def test_the_cpu_of_a_lone_process_is_counted_once(good, monkeypatch):
    worker = replace(good.facts.workers[0], pid=os.getpid(), host="here")
    monkeypatch.setattr("seqstress.report.view.gethostname", lambda: "here")
    lone = RunView(replace(good.facts, workers=(worker,)))
    assert lone.client_cpu_s == pytest.approx(0.002)


@pytest.mark.parametrize("width", [90, 100, 112, 120])
def test_the_text_fits_its_width_and_names_what_matters(bad, width):
    text = render_text(bad, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for needed in ("FAIL", "wrong_result", "every sum holds", "Audit", "--seed 42", "idle 1", "allowed expired"):
        assert needed in text


def test_a_log_gets_plain_text_and_a_terminal_gets_colours(bad):
    log, terminal = StringIO(), StringIO()
    print_report(bad, Console(file=log))
    print_report(bad, Console(file=terminal, force_terminal=True, width=120, color_system="standard"))
    assert log.getvalue() == render_text(bad)
    assert "\x1b[" in terminal.getvalue()


def test_the_text_of_a_good_run_shows_no_failing_column(good):
    text = render_text(good)
    assert "PASS" in text
    assert "100 %" in text
    assert "wrong" not in text


def test_a_text_of_the_server_cannot_act_on_the_terminal(hostile):
    text = render_text(hostile)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]x[/bold]" in text


def test_a_text_of_the_server_cannot_act_on_the_page(hostile):
    page = render_html(hostile)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "{{ 7*7 }}" in page


def test_the_page_needs_no_network(bad):
    page = render_html(bad)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert not re.search(r"@import|url\(", page)


def test_an_account_with_nothing_in_it_can_be_shown():
    view = view_of({})
    assert "no step was sent" in render_text(view)
    assert "no step was sent" in render_html(view)


def test_a_run_leaves_its_files(hostile, tmp_path):
    write_run(tmp_path / "run", hostile)
    names = sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert names == ["failures/w0-u1-c2-p3-s0.0-wrong_result.json", "report.html", "summary.json"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["failures"] == 1
    record = json.loads((tmp_path / "run" / names[0]).read_text(encoding="utf-8"))
    assert record["exchange"][0]["value"] == 3


def test_repeated_failures_of_one_step_do_not_overwrite_each_other(tmp_path):
    write_run(tmp_path, view_of({Fate.OK: 1, Fate.WRONG_RESULT: 2}, [failure("8"), failure("9")]))
    assert len(list((tmp_path / "failures").iterdir())) == 2


def test_two_runs_of_one_second_have_two_directories(good, tmp_path):
    first, second = run_directory(tmp_path, good), run_directory(tmp_path, good)
    assert first.name == "20270115T080000Z-story"
    assert second.name == "20270115T080000Z-story-2"


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "summary.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_chart_covers_its_histogram():
    histogram = Histogram()
    histogram.record_many(1_000, 90)
    histogram.record_many(1_000_000, 10)
    chart = chart_of(histogram)
    assert [label for _, label in chart.ticks] == ["1 ms", "10 ms", "100 ms", "1 s"]
    assert [x for x, _ in chart.ticks] == pytest.approx([0, 240, 480, 720])
    assert chart_of(Histogram()) is None


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 µs"),
        (999, "999 µs"),
        (1000, "1 ms"),
        (12345, "12.3 ms"),
        (999_499, "999 ms"),
        (999_999, "1 s"),
        (61_500_000, "61.5 s"),
    ],
)
def test_a_duration_has_a_fitting_unit(us, text):
    assert duration(us) == text


def test_a_share_is_never_rounded_up_to_all():
    view = view_of({Fate.OK: 29_999, Fate.WRONG_RESULT: 1})
    assert percent(view.total.ok_percent) == "99.99 %"
    assert percent(None) == "–"
    assert number(1234567) == "1,234,567"


def test_taming_keeps_what_can_be_read():
    assert tame("žluťoučký 5 µs") == "žluťoučký 5 µs"
    assert tame("a\nb\x07") == "a�b�"
