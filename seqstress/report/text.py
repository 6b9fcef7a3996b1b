"""The report for a terminal or a CI log: verdict, reasons with remedies, patterns, account, audit."""

import sys
from collections.abc import Iterator
from io import StringIO, TextIOWrapper

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seqstress.protocol import Fate
from seqstress.report.figures import duration, expected, number, percent, tame
from seqstress.report.view import PatternRow, RunView
from seqstress.verdict.ledger import SequenceEnd
from seqstress.verdict.rules import FAILING_FATES, LOAD_FATES, Outcome

WIDTH = 112
"""For output that is no terminal; narrow enough for a CI log."""

FAILURES_SHOWN = 5
"""Records told in full words; the rest is in the files."""

_PATTERN_COLUMNS, _FATE_COLUMN = 84, 12
"""How wide the table of patterns is without fates, and what each of them takes."""

_STYLE = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.UNKNOWN: "yellow"}

_MEANING = {
    Outcome.PASS: "every answer was right and everything sent is accounted for",
    Outcome.FAIL: "the server, or the way to it, did something wrong",
    Outcome.UNKNOWN: "this run cannot tell; see why below",
}


def render_text(view: RunView, width: int = WIDTH) -> str:
    """The report as plain text without colours."""
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(report(view, console.width), crop=False)
    output = console.file
    assert isinstance(output, StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def print_anything() -> None:
    """Let ``print`` replace what the output's encoding has no sign for: a verdict is told on any terminal."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_report(view: RunView, console: Console | None = None) -> None:
    """Print the report: in colours on a terminal, elsewhere as plain text of WIDTH columns."""
    console = console or Console()
    if console.is_terminal:
        console.print(report(view, console.width), crop=False)
    else:
        console.file.write(render_text(view))


def report(view: RunView, width: int) -> Group:
    """The whole report as one thing that rich can print."""
    return Group(*_parts(view, width))


def _parts(view: RunView, width: int) -> Iterator[RenderableType]:
    yield _headline(view)
    yield from _reasons(view)
    yield from _patterns(view, width)
    yield _account(view)
    yield _audit(view)
    yield from _failures(view)
    yield Text.assemble(("Again: ", "bold"), tame(view.facts.command), no_wrap=True, overflow="ignore")  # to be copied


def _headline(view: RunView) -> Panel:
    facts, outcome = view.facts, view.verdict.outcome
    style = _STYLE[outcome]
    head = Text.assemble((outcome.value, f"bold {style}"), "  ", _MEANING[outcome])
    what = (
        f"{facts.scenario.name} on {facts.scenario.model.name} at {facts.target}  seed {facts.seed}  "
        f"{facts.duration_s:.1f} s  {facts.users} users on {len(facts.workers)} worker(s)"
    )
    rate = (
        f"{number(view.total.account.steps_sent)} steps sent, {number(view.steps_per_s)}/s answered;  "
        f"{number(view.total.finished)} sequences finished, {number(view.sequences_per_s)}/s"
    )
    return Panel(Group(head, Text(tame(what)), Text(rate)), border_style=style, expand=True)


def _reasons(view: RunView) -> Iterator[RenderableType]:
    for reason in view.verdict.reasons:
        mark = reason.outcome.value if reason.outcome is not Outcome.PASS else "note"
        text = Text.assemble(
            (f"{mark:>7}  ", f"bold {_STYLE[reason.outcome]}" if mark != "note" else "bold"),
            (f"{reason.rule}: ", "bold"),
            tame(reason.text),
        )
        yield _hanging(text)
        if reason.remedy:
            yield Padding(Text(tame(reason.remedy), style="italic"), (0, 0, 0, 9))
    for warning in view.warnings:
        yield _hanging(Text.assemble(("   note  ", "bold"), tame(warning)))
    for item in view.verdict.allowances:
        told = f"allowed {item.label}: {item.share * 100:.4g} % of the steps = {item.allowed}, used {item.used}"
        yield _hanging(Text.assemble(("   note  ", "bold"), tame(told)))


def _hanging(text: Text) -> RenderableType:
    grid = Table.grid(padding=0)
    grid.add_column(width=9, no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_row(text[:9], text[9:])
    return grid


def _patterns(view: RunView, width: int) -> Iterator[Table]:
    fates = [fate for fate, _ in view.total.other_fates]
    # Where they do not fit, the fates get a table of their own.
    own_columns = fates if _PATTERN_COLUMNS + _FATE_COLUMN * len(fates) <= width else []
    table = _table("Patterns")
    table.add_column("pattern", no_wrap=True)
    for name in ("sequences", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for fate in own_columns:
        table.add_column(fate.label.replace("_", "\n"), justify="right", style=_fate_style(fate), no_wrap=True)
    table.add_column("ok %", justify="right", no_wrap=True)
    for name in ("step\np50", "p95", "p99", "sequence\np99"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in view.patterns:
        table.add_row(*_pattern_cells(row, own_columns))
    table.add_section()
    table.add_row(*_pattern_cells(view.total, own_columns), style="bold")
    yield table
    if len(fates) > len(own_columns):
        yield _fates(view, fates)


def _pattern_cells(row: PatternRow, fates: list[Fate]) -> list[str]:
    account, step = row.account, row.response
    times = [duration(us) if step.count else "–" for us in (step.p50, step.p95, step.p99)]
    return [
        tame(row.name),
        number(account.sequences_planned),
        number(account.steps_sent),
        *(number(account.fates[fate]) for fate in fates),
        percent(row.ok_percent),
        *times,
        duration(row.sequence.p99) if row.sequence.count else "–",
    ]


def _fates(view: RunView, fates: list[Fate]) -> Table:
    """Steps that did not end ``ok``: a row per fate, a column per pattern."""
    table = _table("Steps that did not end ok")
    table.add_column("fate", no_wrap=True)
    rows = (*view.patterns, view.total)
    for row in rows:
        table.add_column(tame(row.name).replace("_", "\n"), justify="right")
    for fate in fates:
        table.add_row(fate.label, *(number(row.account.fates[fate]) for row in rows), style=_fate_style(fate))
    return table


def _fate_style(fate: Fate) -> str:
    return "red" if fate in FAILING_FATES else "yellow" if fate in LOAD_FATES else ""


def _account(view: RunView) -> Table:
    account, ends = view.total.account, view.total.account.sequence_ends
    table = _table("Account", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    fates = " + ".join(f"{number(count)} {label}" for label, count in view.outcomes.items() if count)
    table.add_row(
        "steps",
        f"{number(account.steps_planned)} planned = {number(account.steps_sent)} sent + "
        f"{number(account.steps_not_sent)} not sent;  {number(account.steps_sent)} sent = {fates or '0'}",
    )
    told = " + ".join(f"{number(ends[end])} {end.label.replace('_', ' ')}" for end in SequenceEnd if ends[end])
    table.add_row("sequences", f"{number(account.sequences_planned)} planned = {told or '0'}")
    table.add_row("balance", "; ".join(view.imbalances) or "every sum holds")
    strays = ", ".join(f"{number(count)} {label}" for label, count in view.strays.items() if count)
    table.add_row("stray answers", strays or "none")
    if view.causes:
        table.add_row("expired by", ", ".join(f"{cause} {number(count)}" for cause, count in view.causes.items()))
    cpu = "–" if view.cpu_us_per_step is None else f"{view.cpu_us_per_step:.0f} µs CPU per step"
    lag = f"event loop late by {duration(view.lag.p99)} at p99, {duration(view.lag.max)} at most"
    table.add_row("client", f"{view.facts.transport} transport, {cpu}, {lag}")
    if view.capacity:
        table.add_row("capacity", view.capacity)
    return table


def _audit(view: RunView) -> RenderableType:
    audit = view.facts.audit
    if audit is None or audit.unavailable:
        return Text.assemble(
            ("Audit  ", "bold"), "not made: ", tame(audit.unavailable if audit else "no counters were read")
        )
    table = _table("Audit: the server's own counters against the account")
    table.add_column("counter", no_wrap=True)
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("server", justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("what it must be", ratio=1)
    for row in audit.rows:
        mark = Text("✓", style="green") if row.holds else Text("✗ differs", style="bold red")
        table.add_row(row.name, expected(row), number(row.observed), mark, row.law)
    return table


def _failures(view: RunView) -> Iterator[RenderableType]:
    failures = view.failures
    if not failures:
        return
    yield Text(f"First failures ({min(len(failures), FAILURES_SHOWN)} of {len(failures)} records)", style="bold")
    for failure in failures[:FAILURES_SHOWN]:
        cause = f" ({failure.cause.value})" if failure.cause else ""
        where = f"{failure.pattern} step {failure.step} of sequence {failure.correlation_id}"
        yield Padding(Text(tame(f"{failure.failure_id}{cause}: {where}")), (0, 0, 0, 2))
        yield Padding(
            Text(tame(f"expected {failure.expected[:200]}, observed {failure.observed[:300]}"), style="dim"),
            (0, 0, 0, 6),
        )


def _table(title: str, *, show_header: bool = True) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_header=show_header,
        pad_edge=False,
        collapse_padding=True,
        expand=False,
    )
