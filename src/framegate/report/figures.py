"""How a number, an interval or a size reads, on the page and in Markdown alike."""

from __future__ import annotations

import math

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits without an exponent; a dash for unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}".replace("-", "−")


def rounded(value: float | None) -> str:
    """As `number`, a whole number without decimals."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) and value == int(value) else number(value)


def fixed(value: float | None, places: int = 2) -> str:
    """So many decimals, as a column of one unit needs it; a dash for unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`0.12 … 0.81`, or nothing where an end is unknown."""
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    return f"{number(low, digits)} … {number(high, digits)}"


def size(value: int | None) -> str:
    """Bytes in the unit that reads best."""
    if value is None:
        return DASH
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def count(value: int | None) -> str:
    """A whole number in groups of three."""
    return DASH if value is None else f"{value:,}"
