"""``report.html``: the run in one file that needs no network, in the light and the dark."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import log10

from jinja2 import Environment, StrictUndefined, Template

from seqstress.metrics.histogram import Histogram
from seqstress.protocol import Fate
from seqstress.report.figures import duration, expected, number, percent, tame
from seqstress.report.view import RunView
from seqstress.verdict.ledger import SequenceEnd
from seqstress.verdict.rules import FAILING_FATES, LOAD_FATES

FAILURES_SHOWN = 100
"""Full records in the page; all that were kept are in the files."""

CHART_WIDTH, CHART_HEIGHT = 720, 180


@dataclass(frozen=True, slots=True)
class Chart:
    """A distribution on a logarithmic axis of time, ready to be drawn as SVG."""

    path: str
    """The outline of the area, as the ``d`` of a path."""
    ticks: tuple[tuple[float, str], ...]
    """(x, label) of each power of ten."""
    marks: tuple[tuple[float, str], ...]
    """(x, label) of the percentiles."""


def render_html(view: RunView) -> str:
    """The page. Everything in it is escaped: texts of the server may hold anything."""
    return _template().render(
        view=view,
        facts=view.facts,
        account=view.total.account,
        rows=(*view.patterns, view.total),
        shown_fates=[fate for fate, _ in view.total.other_fates],
        failing=FAILING_FATES,
        load=LOAD_FATES,
        fates=list(Fate),
        ends=[(end.label.replace("_", " "), view.total.account.sequence_ends[end]) for end in SequenceEnd],
        step_chart=chart_of(view.total.account.response),
        sequence_chart=chart_of(view.total.account.sequence),
        chart_width=CHART_WIDTH,
        chart_height=CHART_HEIGHT,
        failures=view.failures[:FAILURES_SHOWN],
        scenario_json=json.dumps(view.scenario.to_plain(), indent=2),
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_tamed
    )
    environment.filters.update(duration=duration, number=number, percent=percent, expected=expected)
    return environment.from_string(files("seqstress.report").joinpath("report.html").read_text(encoding="utf-8"))


def _tamed(value: object) -> object:
    # Escaping keeps markup out; this keeps out what is no markup and still deceives: direction marks, control
    # characters.
    return "\n".join(map(tame, value.split("\n"))) if type(value) is str else value


def chart_of(histogram: Histogram, columns: int = 120) -> Chart | None:
    """The distribution of a histogram, each column an equal share of the logarithmic axis; None when it is
    empty."""
    buckets = histogram.buckets()
    if not buckets:
        return None
    low, high = log10(max(1, histogram.min)), log10(max(1, histogram.max))
    # At least a factor of ten, so that a narrow peak still looks like one.
    low, high = (low, high) if high - low >= 1 else ((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    counts = [0] * columns
    for value, count in buckets:
        counts[min(columns - 1, max(0, int((log10(max(1, value)) - low) / (high - low) * columns)))] += count
    top = max(counts)
    width = CHART_WIDTH / columns

    def place(us: float) -> float:
        return round((log10(max(1.0, us)) - low) / (high - low) * CHART_WIDTH, 1)

    outline = [f"M0 {CHART_HEIGHT}"]
    for index, count in enumerate(counts):
        y = round(CHART_HEIGHT * (1 - count / top), 1)
        outline.append(f"L{index * width:.1f} {y} L{(index + 1) * width:.1f} {y}")
    outline.append(f"L{CHART_WIDTH} {CHART_HEIGHT} Z")
    powers = range(int(low) - 1, int(high) + 2)
    return Chart(
        path=" ".join(outline),
        ticks=tuple(
            (place(10.0**power), duration(10**power)) for power in powers if power >= 0 and low <= power <= high
        ),
        marks=tuple(
            (place(us), f"p{share} {duration(us)}") for share in (50, 95, 99) for us in (histogram.percentile(share),)
        ),
    )
