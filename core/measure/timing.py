"""Timed rounds: warm up until steady, then repeat, alone or in turns with the baseline.

Knows no model and no metric: a round is a function. core.measure.serve says what a round is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Round = TypeVar("Round")
Report = Callable[[float], None]

# Rounds that are compared with as many before them.
HALF = 3
# A speed-up below this share between the two is not worth waiting for.
TREND = 0.02


@dataclass(frozen=True)
class WarmUp:
    """Untimed rounds before the timed ones; `steady` is None when they were too few to tell."""

    calls: int
    steady: bool | None

    @property
    def rounds(self) -> str:
        """How many, in words."""
        return f"{self.calls} warm-up round" + ("s" if self.calls != 1 else "")

    def __str__(self) -> str:
        rounds = self.rounds
        if self.steady is None:
            return f"{rounds}, too few to tell whether it was steady"
        return rounds if self.steady else f"{rounds} in which it did not become steady"


def warm_up(
    run: Callable[[], object], most: int = 30, seconds: float = 20.0, unjudged: int = 0
) -> WarmUp:
    """Call `run` until it is steady, at most `most` times or, after two calls, `seconds`; behind
    `unjudged` calls that may compile, choose kernels and capture steps for as long as that takes.
    """
    for _ in range(unjudged):
        run()
    took: list[float] = []
    while len(took) < most and (len(took) < 2 or sum(took) < seconds):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
        if is_steady(took):
            return WarmUp(unjudged + len(took), True)
    return WarmUp(unjudged + len(took), False if len(took) >= 2 * HALF else None)


def is_steady(took: list[float]) -> bool:
    """Whether rounds that took `took` seconds no longer get faster.

    Of the last six the later three must not all be faster than all of the earlier three, which
    chance alone gives in one of 20 cases (Mann & Whitney 1947: U = 0 at 3 and 3), unless their
    medians differ by less than 2 %. Noise therefore cannot keep a warm-up going, a trend can.
    """
    if len(took) < 2 * HALF:
        return False
    before, after = took[-2 * HALF : -HALF], took[-HALF:]
    faster = max(after) < min(before)
    return not faster or median(after) > (1 - TREND) * median(before)


def repeat(
    run: Callable[[], Round], repeats: int, seconds: float, report: Report, most: int = 10_000
) -> list[Round]:
    """Results of at least `repeats` calls that together took at least `seconds`, at most `most`."""
    return [ours for ours, _ in alternate(run, None, repeats, seconds, report, most)]


def alternate(
    ours: Callable[[], Round],
    theirs: Callable[[], Round] | None,
    repeats: int,
    seconds: float,
    report: Report,
    most: int = 10_000,
) -> list[tuple[Round, Round | None]]:
    """Pairs of a round of ours and one of theirs, in the order A B, B A, A B, ...

    At least `repeats` pairs in which ours took at least `seconds` together. A drift of the machine
    meets both alike, and turning the order round cancels what the second of a pair gains from the
    first. Without `theirs` the second of each pair is None.
    """
    pairs: list[tuple[Round, Round | None]] = []
    spent = 0.0
    while len(pairs) < most:
        second = theirs() if theirs is not None and len(pairs) % 2 else None
        began = time.perf_counter()
        first = ours()
        spent += time.perf_counter() - began
        if theirs is not None and second is None:
            second = theirs()
        pairs.append((first, second))
        report(min(len(pairs) / repeats, spent / seconds if seconds else 1.0, 1.0))
        if len(pairs) >= repeats and spent >= seconds:
            break
    return pairs
