"""Which prefixes of a plan are worth keeping for the plans that a study measures after it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from core.plan import Plan, Technique


def shared(plan: Plan, later: Iterable[Plan]) -> tuple[int, ...]:
    """Lengths of the plan's prefixes that end with a technique that trains or calibrates and that a
    later plan begins with too, each as long as it can be; shortest first.
    """
    lengths = {_length(plan.techniques, other.techniques) for other in later}
    return tuple(sorted(lengths - {0}))


def _length(ours: tuple[Technique, ...], theirs: tuple[Technique, ...]) -> int:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
    costly = (
        count
        for count, (technique, _) in enumerate(pairs, 1)
        if technique.trains or technique.calibrates
    )
    return max(costly, default=0)
