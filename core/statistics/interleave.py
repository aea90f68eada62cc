"""The interval of a ratio from interleaved pairs: ours and the baseline's, measured in turns.

A drift of the machine (heat, clock, a neighbour) moves both of a pair, so their ratio is steadier
than either. Knows no trials: core.verdict.judge turns intervals into verdicts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Pairs beyond this number are averaged in blocks of neighbours, which also takes care of what
# neighbours have in common.
BLOCKS = 200
MIN_PAIRS = 6  # fewer cannot reach 95 % confidence whatever they show: 2 / 2^5 > 0.05


@lru_cache(maxsize=2048)
def ratio_interval(
    ours: tuple[float, ...], theirs: tuple[float, ...]
) -> tuple[float, float, float] | None:
    """(ratio, low, high): the typical ours / theirs of float [n] and [n], all above 0, with its
    95 % interval; None with fewer than six pairs.

    The estimate of Hodges & Lehmann (1963) on the logarithms of the pairs' ratios: the median of
    all means of two, with the exact interval of Wilcoxon's signed-rank test. One pair in four may
    be an outlier without moving it far. ValueError when the lengths differ or a value is not above
    0.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values cannot be paired with {len(theirs)}")
    if len(ours) < MIN_PAIRS:
        return None
    if min(ours) <= 0 or min(theirs) <= 0:
        raise ValueError("a ratio needs values above 0")
    logs = np.log(np.array(ours)) - np.log(np.array(theirs))
    if len(logs) > BLOCKS:
        logs = means_of_blocks(logs, BLOCKS)
    n = len(logs)
    rows, columns = _pairs_of(n)
    means = np.sort((logs[rows] + logs[columns]) / 2)
    rank = critical_rank(n)
    low, middle, high = (
        means[rank - 1],
        (means[(len(means) - 1) // 2] + means[len(means) // 2]) / 2,
        means[len(means) - rank],
    )
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high))


def means_of_blocks(values: np.ndarray, blocks: int) -> np.ndarray:
    """Means float [blocks] of `values` float [n >= blocks], in blocks of neighbours whose sizes
    differ by one at most."""
    n = len(values)
    starts = np.arange(blocks) * n // blocks
    return np.asarray(np.add.reduceat(values, starts) / np.diff(starts, append=n))


@lru_cache(maxsize=16)
def _pairs_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of all means of two, a value with itself included."""
    rows, columns = np.triu_indices(n)
    return rows, columns


@lru_cache(maxsize=BLOCKS)
def critical_rank(n: int, confidence: float = 0.95) -> int:
    """Which of the sorted means of two bounds the interval: the largest k with
    P(W <= k - 1) <= (1 - confidence) / 2 for Wilcoxon's W of n pairs (Hollander & Wolfe 1999,
    section 3.3)."""
    chances = np.zeros(n * (n + 1) // 2 + 1)
    chances[0] = 1.0
    for rank in range(1, n + 1):
        moved = np.zeros_like(chances)
        moved[rank:] = chances[:-rank]
        chances = (chances + moved) / 2
    below = np.cumsum(chances)
    return max(1, int(np.searchsorted(below, (1 - confidence) / 2, side="right")))


def quotient(
    above: tuple[float, float, float], below: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(ratio, low, high) of two such ratios that share their denominator's plan, each measured in
    a process of its own: MOVER on the logarithms (Zou & Donner 2008)."""
    up, down = np.log(above), np.log(below)
    middle = up[0] - down[0]
    low = middle - np.hypot(up[0] - up[1], down[2] - down[0])
    high = middle + np.hypot(up[2] - up[0], down[0] - down[1])
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high))
