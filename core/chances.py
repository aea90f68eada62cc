"""How likely each trial is the best one: P(best), by resampling the pairs that the gains come from.

Each draw takes the paired rounds of every trial anew (with replacement), and the paired windows or
items of quality, which are the same for all trials and so are drawn alike for all; it adds what two
copies of one plan may differ by (core.judge.FLOORS), and sums up the utilities. The share of draws
in which a trial is ahead of all others is its chance. Numbers without pairs are drawn from their
judged interval; exact ones do not move (Efron & Tibshirani 1993, chapter 8; Hong & Nelson 2007 on
selection by simulated bests).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from core import metrics, utility
from core.against import asked, pairing
from core.judge import FLOORS
from core.paired import MIN_WINDOWS, Z, resampled_means
from core.predict.projection import ratio_error
from core.study import Study, Trial

DRAWS = 1000
# Rounds are put together to so many blocks of neighbours, so that a draw is quick.
BLOCKS = 40
MIN_PAIRS = 6


def chances(study: Study, rivals: Sequence[Trial]) -> dict[str, float] | None:
    """P(best) by trial id among `rivals`, adding up to 1; None when the baseline is missing or
    some gain has no interval at all: then nothing can be said."""
    baseline = next((trial for trial in study.done() if trial.is_baseline), None)
    if baseline is None or not rivals:
        return None
    totals = np.zeros((len(rivals), DRAWS))
    for word, name in utility.axes(study):
        gains = {trial.id: utility.gain(word, name, trial, baseline) for trial in study.done()}
        worst = min([0.0, *(gain.gain for gain in gains.values() if gain is not None)])
        for row, trial in enumerate(rivals):
            gain = gains[trial.id]
            if gain is None:
                drawn: np.ndarray | float = worst
            elif gain.spread is None:
                return None
            else:
                drawn = _draws(trial, baseline, gain)
            totals[row] += study.priorities.weight(word) * drawn
    ahead = totals >= totals.max(axis=0) - 1e-12
    shares = (ahead / ahead.sum(axis=0)).mean(axis=1)
    return {trial.id: float(share) for trial, share in zip(rivals, shares, strict=True)}


def _draws(trial: Trial, baseline: Trial, gain: utility.Gain) -> np.ndarray | float:
    """Draws of one gain, float [DRAWS]."""
    assert gain.spread is not None
    if gain.spread == 0:
        return gain.gain
    found = asked(trial, gain.metric)
    metric = metrics.metric(gain.metric)
    paired = found is not None and pairing(trial, baseline) == "turns" and found.reference
    if found is None or not paired or metric.quantile != 0.5:
        return gain.gain + gain.spread / Z * _normal(trial, gain.metric)
    scale = utility.points(gain.metric)
    if metric.group == "quality":
        quality = _of_windows(gain.metric, found.samples, found.reference)
        if quality is None:
            return gain.gain + gain.spread / Z * _normal(trial, gain.metric)
        return quality * scale
    logs = _of_rounds(found.samples, found.reference)
    if logs is None:
        return gain.gain + gain.spread / Z * _normal(trial, gain.metric)
    error = math.log1p(FLOORS["turns"])
    if found.origin == "projected":
        error = math.hypot(error, math.log(ratio_error(trial.plan, baseline.plan)))
    # The centre is the judged ratio: the resampled rounds say how it scatters.
    return gain.gain + (logs + error / Z * _normal(trial, gain.metric)) * scale


def _normal(trial: Trial, name: str) -> np.ndarray:
    """Standard normal draws that belong to this trial and metric alone."""
    seed = [3, zlib.crc32(trial.id.encode()), zlib.crc32(name.encode())]
    return np.random.default_rng(seed).standard_normal(DRAWS)


@lru_cache(maxsize=512)
def _of_rounds(ours: tuple[float, ...], theirs: tuple[float, ...]) -> np.ndarray | None:
    """How Hodges and Lehmann's estimate of log(ours / theirs) of resampled pairs scatters around
    that of the pairs themselves, float [DRAWS]; None with too few pairs, or values that have no
    ratio."""
    if len(ours) != len(theirs) or len(ours) < MIN_PAIRS or min(*ours, *theirs) <= 0:
        return None
    logs = np.log(np.array(ours)) - np.log(np.array(theirs))
    if len(logs) > BLOCKS:
        logs = np.array([part.mean() for part in np.array_split(logs, BLOCKS)])
    n = len(logs)
    random = np.random.default_rng([4, zlib.crc32(logs.tobytes())])
    drawn = logs[random.integers(0, n, (DRAWS, n))]
    rows, columns = np.triu_indices(n)
    centre = np.median((logs[rows] + logs[columns]) / 2)
    return np.asarray(np.median((drawn[:, rows] + drawn[:, columns]) / 2, axis=1) - centre)


@lru_cache(maxsize=512)
def _of_windows(name: str, ours: tuple[float, ...], theirs: tuple[float, ...]) -> np.ndarray | None:
    """The paired difference of means (of logarithms, for perplexity) over resampled windows or
    items, float [DRAWS]; the same windows for every trial that saw as many."""
    if len(ours) != len(theirs) or len(ours) < MIN_WINDOWS:
        return None
    pairs = np.array([ours, theirs])
    if name == "perplexity":
        if pairs.min() <= 0:
            return None
        pairs = np.log(pairs)
    drawn = resampled_means(pairs, name, DRAWS)
    return np.asarray(drawn[0] - drawn[1])
