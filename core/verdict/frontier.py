"""The Pareto frontier: the trials that no other trial beats on every chosen metric. Knows no
weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core import metrics
from core.errors import BadInput
from core.study import Trial

Point = tuple[float, ...]


def frontier(trials: Iterable[Trial], axes: tuple[str, ...]) -> tuple[Trial, ...]:
    """The trials not dominated on `axes` (metric names), in the order given.

    One trial dominates another when it is at least as good on every axis and better on one; which
    side is good comes from the table of metrics. A trial without a value on some axis is left out:
    unknown is not good. Of trials with equal values the first is kept. BadInput on an unknown
    metric or no axis.
    """
    candidates = tuple(trials)
    kept = of_values([[trial.value(name) for name in axes] for trial in candidates], axes)
    return tuple(candidates[index] for index in kept)


def of_values(rows: Sequence[Sequence[float | None]], axes: tuple[str, ...]) -> list[int]:
    """As `frontier`, over plain rows of values: the indices of the rows that are not dominated."""
    if not axes:
        raise BadInput("a frontier needs at least one axis")
    signs = [1.0 if metrics.metric(name).better == "lower" else -1.0 for name in axes]
    known = [index for index, row in enumerate(rows) if all(value is not None for value in row)]
    points = [
        tuple(s * v for s, v in zip(signs, rows[index], strict=True) if v is not None)
        for index in known
    ]
    return [known[index] for index in lowest(points)]


def lowest(points: Sequence[Point]) -> list[int]:
    """Indices, ascending, of the points that no other point dominates when less is better; equal
    points count once.

    Sorted lexicographically, a point can only be dominated by an earlier one. With two coordinates
    the best second coordinate so far decides: O(n log n) (Kung, Luccio & Preparata 1975); with
    more, the points kept so far are asked.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index], index))
    kept: list[int] = []
    for index in order:
        point = points[index]
        rivals = kept[-1:] if len(point) <= 2 else kept
        if not any(all(a <= b for a, b in zip(points[k], point, strict=True)) for k in rivals):
            kept.append(index)
    return sorted(kept)
