"""How figures and texts of strangers are written for people; shared by the text and the HTML report."""

from seqstress.verdict.audit import AuditRow


def duration(us: int) -> str:
    """Microseconds with a fitting unit: ``840 µs``, ``3.21 ms``, ``1.25 s``."""
    if us < 1000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1000:.3g} ms" if us < 999_500 else "1 s"
    return f"{us / 1_000_000:.4g} s"


def number(count: float) -> str:
    """A whole number in groups of three digits."""
    return f"{count:,.0f}"


def percent(value: float | None) -> str:
    """A percentage; a dash where there is nothing to take it of. The value is rounded down, so 100 means
    all."""
    if value is None:
        return "–"
    return "100 %" if value == 100 else f"{value:.2f} %"


def expected(row: AuditRow) -> str:
    """What the server should have counted."""
    if row.expected_high is None:
        return f"≥ {number(row.expected_low)}"
    if row.expected_low == row.expected_high:
        return number(row.expected_low)
    return f"{number(row.expected_low)} to {number(row.expected_high)}"


def tame(text: str) -> str:
    """A text of the server without what would act on a terminal: escapes, line breaks, direction marks."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
