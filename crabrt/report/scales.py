"""One scale for many bars: long enough for nearly all; one giant does not flatten the rest."""

from __future__ import annotations

from collections.abc import Iterable

_SHARE = 0.95
_GIANT = 2
"""A bar is shown broken where it is so many times as long as nearly all others."""

_STEPS = (1, 2, 5)


def scale_of(values: Iterable[float]) -> float:
    """The value at which a scale ends; bars beyond it are shown broken. 1 where all are 0."""
    positive = sorted(value for value in values if value > 0)
    if not positive:
        return 1.0
    nearly_all = positive[int((len(positive) - 1) * _SHARE)]
    return min(positive[-1], nearly_all * _GIANT)


def round_step(scale: float, parts: int = 3) -> float:
    """The distance of ticks on a scale: 1, 2 or 5 times a power of ten, about `parts` of them."""
    wanted, power = scale / max(1, parts), 1e-6
    while power * 10 <= wanted:
        power *= 10
    return next((power * step for step in _STEPS if power * step >= wanted), power * 10)
