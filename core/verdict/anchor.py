"""Absolute numbers that agree with the ratios: each timed number of a study at one common baseline.

The unchanged model is timed beside every candidate, so a study holds many readings of it, and on a
busy machine they differ. Verdicts rest on the ratio of each candidate to the baseline beside it;
shown side by side, numbers that belong to different baselines would contradict them. Here every
timed number becomes ratio x the pooled baseline: the median over all readings of the unchanged
model. What the clock said stays in the samples, and in the method.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from core import format as shown
from core import metrics
from core.measurement import Measurement, bootstrap_median
from core.statistics.interleave import MIN_PAIRS
from core.study import Study, Trial
from core.verdict.against import against, asked, pairing


def anchored(study: Study) -> Study:
    """The study with its trials' timed numbers at the pooled baseline, also of those that failed
    after they were timed; as it is where the baseline has not finished. Anchoring twice changes no
    number."""
    baseline = next((trial for trial in study.done() if trial.is_baseline), None)
    if baseline is None:
        return study
    pools = {
        name: pool
        for name in _names(study)
        if (pool := _readings(study, baseline, name)) and len(pool) > 1
    }
    if not pools:
        return study
    return study.with_trials(tuple(_at_baseline(trial, baseline, pools) for trial in study.trials))


def at_own_baseline(trials: Sequence[Trial], studies: Iterable[Study]) -> tuple[Trial, ...]:
    """`trials`, each as its own study of `studies` has it at the pooled baseline; one that none of
    them holds stays as it is."""
    by_id = {trial.id: trial for study in studies for trial in anchored(study).trials}
    return tuple(by_id.get(trial.id, trial) for trial in trials)


def _names(study: Study) -> tuple[str, ...]:
    names = {row.metric: None for trial in study.done() for row in trial.measurements}
    return tuple(name for name in names if metrics.metric(name).timed)


def _readings(study: Study, baseline: Trial, name: str) -> list[float]:
    """The unchanged model's value of a metric in each process that timed it."""
    own = asked(baseline, name)
    if own is None or own.value is None or not own.samples:
        return []
    readings = [_statistic(name, own.samples)]
    for trial in study.done():
        beside = asked(trial, name)
        if trial.is_baseline or beside is None or pairing(trial, baseline) != "turns":
            continue
        if beside.origin == own.origin and len(beside.reference) == len(beside.samples) > 0:
            readings.append(_statistic(name, beside.reference))
    return readings


@lru_cache(maxsize=2048)
def _statistic(name: str, samples: tuple[float, ...]) -> float:
    return float(np.quantile(samples, metrics.metric(name).quantile))


def _at_baseline(trial: Trial, baseline: Trial, pools: dict[str, list[float]]) -> Trial:
    measurements = tuple(
        _moved(row, trial, baseline, pools[row.metric])
        if row.metric in pools and row is asked(trial, row.metric) and not row.condition
        else row
        for row in trial.measurements
    )
    return replace(trial, measurements=measurements)


def _moved(row: Measurement, trial: Trial, baseline: Trial, readings: list[float]) -> Measurement:
    pooled = float(np.median(readings))
    if trial.id == baseline.id:
        bounds = bootstrap_median(np.array(readings)) if len(readings) >= 3 else row.interval()
        how = f"{row.method}; the median of {len(readings)} processes that timed the same model"
        return replace(row, pooled=pooled, bounds=_around(pooled, bounds), method=how)
    judgement = against(trial, baseline, row.metric)
    # Too few pairs are judged apart, by the numbers themselves: those must stay as they are.
    few = len(row.samples) < MIN_PAIRS and metrics.metric(row.metric).quantile == 0.5
    unpaired = few or len(row.samples) != len(row.reference) or min(row.reference, default=0) <= 0
    apart = pairing(trial, baseline) != "turns" or unpaired
    if apart or judgement.ratio is None:
        return row
    value = judgement.ratio * pooled
    bounds = None
    if judgement.low is not None and judgement.high is not None:
        bounds = (judgement.low * pooled, judgement.high * pooled)
    clock, beside = _statistic(row.metric, row.samples), _statistic(row.metric, row.reference)
    how = (
        f"{row.method}; at the study's baseline of {shown.of_metric(row.metric, pooled)}: the clock"
        f" said {shown.of_metric(row.metric, clock)} beside"
        f" {shown.of_metric(row.metric, beside)} of the unchanged model"
    )
    return replace(row, pooled=value, bounds=_around(value, bounds), method=how)


def _around(value: float, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (min(bounds[0], value), max(bounds[1], value))
