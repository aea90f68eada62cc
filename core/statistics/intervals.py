"""Intervals of a ratio and of a difference, from samples or from the intervals of both sides.

Knows no metric and no verdict: core.verdict.judge turns intervals into verdicts. Pairs taken in
turns are core.statistics.interleave's, pairs of windows or items core.statistics.paired's.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

DRAWS = 4000


def ratio_of_medians(
    candidate: np.ndarray, baseline: np.ndarray, stream: str = "", draws: int = DRAWS
) -> tuple[float, float]:
    """95 % interval of median(candidate) / median(baseline): float [n] and [m], all above 0.

    Percentile bootstrap, both sides resampled independently (Efron & Tibshirani 1993, chapter 13).
    The seed is fixed by `stream`, so that a ratio shows the same interval everywhere.
    """
    random = np.random.default_rng([0, zlib.crc32(stream.encode())])
    above = np.median(
        candidate[random.integers(0, len(candidate), (draws, len(candidate)))], axis=1
    )
    below = np.median(baseline[random.integers(0, len(baseline), (draws, len(baseline)))], axis=1)
    low, high = np.quantile(above / below, (0.025, 0.975))
    return float(low), float(high)


def mover_difference(
    value: float,
    bounds: tuple[float, float],
    reference: float,
    reference_bounds: tuple[float, float],
) -> tuple[float, float]:
    """Interval of value - reference from those of both (MOVER: Zou & Donner 2008)."""
    difference = value - reference
    down = math.hypot(value - bounds[0], reference_bounds[1] - reference)
    up = math.hypot(bounds[1] - value, reference - reference_bounds[0])
    return difference - down, difference + up


def mover_ratio(
    value: float,
    bounds: tuple[float, float],
    reference: float,
    reference_bounds: tuple[float, float],
) -> tuple[float, float]:
    """Interval of value / reference: MOVER on the logarithms. All numbers are above 0."""
    low, high = mover_difference(
        math.log(value),
        (math.log(bounds[0]), math.log(bounds[1])),
        math.log(reference),
        (math.log(reference_bounds[0]), math.log(reference_bounds[1])),
    )
    # Numbers of the very ends of the range have a ratio beyond it.
    return (math.exp(low), math.exp(high)) if high < 709 else (math.exp(min(low, 709)), math.inf)


def ratio_of_quantiles(
    candidate: np.ndarray, baseline: np.ndarray, q: float, stream: str = "", draws: int = DRAWS // 4
) -> tuple[float, float]:
    """95 % interval of the ratio of two `q` quantiles of samples taken in turns: both float [n],
    all above 0.

    Percentile bootstrap that resamples the pairs, so that what moved both of a pair stays in both.
    """
    random = np.random.default_rng([2, zlib.crc32(stream.encode())])
    chosen = random.integers(0, len(candidate), (draws, len(candidate)))
    ratios = _quantiles(candidate, chosen, q) / _quantiles(baseline, chosen, q)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def _quantiles(values: np.ndarray, chosen: np.ndarray, q: float) -> np.ndarray:
    """The `q` quantile of values[row] for each row of `chosen`, float [draws]: as np.quantile of
    each, by the ranks of the values, which are quicker to part than the values."""
    n = len(values)
    order = np.argsort(values)
    ranks = np.empty(n, np.uint16 if n < 2**16 else np.int64)
    ranks[order] = np.arange(n)
    place = q * (n - 1)
    below, above = math.floor(place), math.ceil(place)
    parted = np.partition(ranks[chosen], (below, above), axis=1)
    lower, upper = values[order[parted[:, below]]], values[order[parted[:, above]]]
    return np.asarray(lower + (upper - lower) * (place - below))
