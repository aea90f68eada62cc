"""How likely each trial is the best one: P(best), by resampling the pairs that the gains come from.

Each draw takes the paired rounds of every trial anew (with replacement), and the paired windows or
items of quality, which are the same for all trials and so are drawn alike for all; it adds what two
copies of one plan may differ by (core.verdict.judge.FLOORS), and sums up the utilities. The share
of draws in which a trial is ahead of all others is its chance. Numbers without pairs are drawn
from their judged interval; exact ones do not move (Efron & Tibshirani 1993, chapter 8; Hong &
Nelson 2007 on selection by simulated bests).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from core import metrics
from core.measurement import Measurement
from core.predict.projection import ratio_error
from core.statistics.interleave import MIN_PAIRS, means_of_blocks
from core.statistics.paired import MIN_WINDOWS, resampled_means, widened_quantile
from core.statistics.proportions import Z
from core.study import Study, Trial
from core.verdict import utility
from core.verdict.against import asked, floor_between, pairing
from core.verdict.judge import FLOORS

DRAWS = 1000
# Rounds are put together to so many blocks of neighbours, so that a draw is quick.
BLOCKS = 40
# No draw of a gain is further from its centre than so many half widths of its 95 % interval, but
# for one in a million.
FAR = 2.5


def chances(study: Study, rivals: Sequence[Trial]) -> dict[str, float] | None:
    """P(best) by trial id among `rivals`, adding up to 1; None when the baseline is missing or
    some gain has no interval at all: then nothing can be said."""
    baseline = next((trial for trial in study.done() if trial.is_baseline), None)
    if baseline is None or not rivals:
        return None
    gains = _gains(study, rivals, baseline)
    if gains is None:
        return None
    close = _close(study, rivals, baseline, gains)
    totals = np.zeros((len(close), DRAWS))
    for row, trial in enumerate(close):
        for gain in gains[trial.id]:
            weight = study.priorities.weight(gain.word)
            totals[row] += weight * _draws(trial, baseline, gain)
    ahead = totals >= totals.max(axis=0) - 1e-12
    shares = (ahead / ahead.sum(axis=0)).mean(axis=1)
    shares_by_id = {trial.id: 0.0 for trial in rivals}
    return shares_by_id | {t.id: float(share) for t, share in zip(close, shares, strict=True)}


def _gains(
    study: Study, rivals: Sequence[Trial], baseline: Trial
) -> dict[str, list[utility.Gain]] | None:
    """Each rival's gains, one a word, an unknown one as the worst; None when one has no
    interval."""
    gains_by_id: dict[str, list[utility.Gain]] = {trial.id: [] for trial in rivals}
    for word, name in utility.axes(study):
        known = {trial.id: utility.gain(word, name, trial, baseline) for trial in study.done()}
        worst = min([0.0, *(gain.gain for gain in known.values() if gain is not None)])
        for trial_id, gains in gains_by_id.items():
            gain = known[trial_id] or utility.Gain(word, name, worst, 0.0, known=False)
            if gain.spread is None:
                return None
            gains.append(gain)
    return gains_by_id


def _close(
    study: Study,
    rivals: Sequence[Trial],
    baseline: Trial,
    gains: dict[str, list[utility.Gain]],
) -> list[Trial]:
    """The rivals that are not so far behind that no draw could bring them to the front: the others'
    chance is 0 without drawing."""
    ends = []
    for trial in rivals:
        centre = reach = 0.0
        for gain in gains[trial.id]:
            weight, wide = study.priorities.weight(gain.word), gain.spread or 0.0
            if gain.known and trial.id != baseline.id:
                wide += _floor(trial, baseline, gain) * abs(utility.points(gain.metric))
            centre += weight * gain.gain
            reach += weight * wide * FAR
        ends.append((centre - reach, centre + reach))
    front = max(low for low, _ in ends)
    return [trial for trial, (_, high) in zip(rivals, ends, strict=True) if high >= front]


def _draws(trial: Trial, baseline: Trial, gain: utility.Gain) -> np.ndarray | float:
    """Draws of one gain, float [DRAWS]."""
    assert gain.spread is not None
    measurement = asked(trial, gain.metric)
    metric = metrics.metric(gain.metric)
    timed = metric.timed
    if (
        not gain.known
        or trial.id == baseline.id
        or measurement is None
        or (gain.spread == 0 and not timed)
    ):
        return gain.gain
    scale = utility.points(gain.metric)
    # One error of the process moves all of its times alike.
    floor = _floor(trial, baseline, gain)
    paired = _paired(trial, baseline, measurement)
    drawn = floor / Z * abs(scale) * _normal(trial, "time" if timed else f"floor {metric.name}")
    scatter = None
    if paired and metric.judged == "paired":
        quality = _of_windows(gain.metric, measurement.samples, measurement.reference)
        return drawn + (gain.gain + _spread(trial, gain) if quality is None else quality * scale)
    if paired and timed and metric.quantile == 0.5:
        scatter = _of_rounds(trial.id, measurement.samples, measurement.reference)
    # The centre is the judged ratio: the resampled rounds say how it scatters.
    return drawn + gain.gain + (_spread(trial, gain) if scatter is None else scatter * scale)


def _floor(trial: Trial, baseline: Trial, gain: utility.Gain) -> float:
    """What two copies, or two correct programs, of one plan may differ by at 95 %: in the logarithm
    for what was timed, in the metric's unit else."""
    measurement = asked(trial, gain.metric)
    if measurement is None or not metrics.metric(gain.metric).timed:
        return floor_between(trial, baseline, gain.metric)
    paired = _paired(trial, baseline, measurement)
    floor = math.log1p(FLOORS["turns" if paired else "apart"])
    if measurement.origin == "projected" and paired:
        return math.hypot(floor, math.log(ratio_error(trial.plan, baseline.plan)))
    return floor


def _paired(trial: Trial, baseline: Trial, measurement: Measurement) -> bool:
    together = pairing(trial, baseline) == "turns"
    return together and len(measurement.samples) == len(measurement.reference) > 0


def _spread(trial: Trial, gain: utility.Gain) -> np.ndarray:
    """Draws around 0 as wide as the judged interval, the same for all times of one trial."""
    timed = metrics.metric(gain.metric).timed
    return (gain.spread or 0.0) / Z * _normal(trial, "rounds" if timed else gain.metric)


def _normal(trial: Trial, name: str) -> np.ndarray:
    """Standard normal draws that belong to this trial and `name` alone."""
    seed = [3, zlib.crc32(trial.id.encode()), zlib.crc32(name.encode())]
    return np.random.default_rng(seed).standard_normal(DRAWS)


@lru_cache(maxsize=512)
def _of_rounds(
    trial_id: str, ours: tuple[float, ...], theirs: tuple[float, ...]
) -> np.ndarray | None:
    """How Hodges and Lehmann's estimate of log(ours / theirs) of resampled pairs scatters around
    that of the pairs themselves, float [DRAWS]; None with too few pairs, or values that have no
    ratio.

    All metrics of a trial draw the same rounds: a slow one is slow in latency and in throughput.
    The scatter is widened for few rounds as core.statistics.paired.bca_bounds is."""
    if len(ours) != len(theirs) or len(ours) < MIN_PAIRS or min(*ours, *theirs) <= 0:
        return None
    logs = np.log(np.array(ours)) - np.log(np.array(theirs))
    if len(logs) > BLOCKS:
        logs = means_of_blocks(logs, BLOCKS)
    n = len(logs)
    random = np.random.default_rng([4, zlib.crc32(trial_id.encode())])
    drawn = logs[random.integers(0, n, (DRAWS, n))]
    rows, columns = np.triu_indices(n)
    centre = np.median((logs[rows] + logs[columns]) / 2)
    scatter = np.median((drawn[:, rows] + drawn[:, columns]) / 2, axis=1) - centre
    return np.asarray(scatter * widened_quantile(n) / Z)


@lru_cache(maxsize=512)
def _of_windows(name: str, ours: tuple[float, ...], theirs: tuple[float, ...]) -> np.ndarray | None:
    """The paired difference of means (of logarithms, for geometric ones) over resampled windows or
    items, float [DRAWS]; the same windows for every trial that saw as many."""
    if len(ours) != len(theirs) or len(ours) < MIN_WINDOWS:
        return None
    pairs = np.array([ours, theirs])
    if metrics.metric(name).geometric:
        if pairs.min() <= 0:
            return None
        pairs = np.log(pairs)
    drawn = resampled_means(pairs, name, DRAWS)
    return np.asarray(drawn[0] - drawn[1])
