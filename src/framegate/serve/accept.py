"""Which of two forms of an answer a client prefers, by its `Accept` (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.request import parse_http_list


def preferred(accepted: Iterable[str], offered: Sequence[str]) -> str:
    """The media type of `offered` that the fields `Accept` give most weight, the first one where none is acceptable.

    Of equal weight the one that is named, not matched by a wildcard; then the one that is named first.
    """
    ranges = [_weighed(item) for item in parse_http_list(",".join(accepted))]
    rated = [(_rating(kind, ranges), kind) for kind in offered]
    best = max(rating for rating, _ in rated)
    return offered[0] if not best[0] else next(kind for rating, kind in rated if rating == best)


def _rating(kind: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int, int]:
    """Weight, nearness (0 by name, less by a wildcard) and place of what is said of a media type; more is better."""
    names = (kind, f"{kind.partition('/')[0]}/*", "*/*")
    said = [(-names.index(name), -place, weight) for place, (name, weight) in enumerate(ranges) if name in names]
    nearness, place, weight = max(said, default=(0, 0, 0.0))  # the most specific range alone says what it weighs
    return weight, nearness, place


def _weighed(item: str) -> tuple[str, float]:
    """A media range in lower case without parameters, and its weight, 0 to 1."""
    name, *parameters = (word.strip().lower() for word in item.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "q":
            return name, _weight(value)
    return name, 1.0


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 1.0
    return weight if 0 <= weight <= 1 else 1.0
