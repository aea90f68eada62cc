"""How much a trial is worth to its user: the documented utility. Chooses nothing; that is
recommend.py.

The utility of a trial is U = sum over the words w of weight(w) * gain(w), with gains against the
study's baseline, from the same judgements that every page shows (core.verdict.against):

- latency, throughput, size, energy, cost: gain = log2 of the improvement ratio, so twice as fast,
  or half as large, is worth 1 and twice as slow costs 1. The metric is the first that the baseline
  has of those that decide the word (core.metrics).
- quality: gain = -(loss / scale), where the scale is each metric's `halving_loss`:
  0.05 nats of KL to the baseline, 0.05 nats of log-perplexity, 5 points of top-1 agreement or 2
  points of accuracy cost as much as halving any of the others gains.

A word that no trial can be judged by counts for none. A trial that lacks a metric which others have
gets, for that word, the worst gain seen in the study, or 0 if that is lower: unknown is never
better than known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from core import metrics
from core.study import Study, Trial
from core.verdict.against import against, asked


@dataclass(frozen=True)
class Gain:
    """What one word gains; `spread` is half the width of its 95 % interval, None when a side has no
    interval. `known` is False where the worst gain stands in for one that cannot be judged.
    """

    word: str
    metric: str
    gain: float
    spread: float | None
    known: bool = True


def axes(study: Study) -> tuple[tuple[str, str], ...]:
    """(word, metric) for every word with a weight above 0 that some candidate can be judged by."""
    return tuple(pair for pair in judged(study) if study.priorities.weight(pair[0]) > 0)


def judged(study: Study) -> tuple[tuple[str, str], ...]:
    """(word, metric) for every word that some candidate can be judged by, whatever it weighs."""
    images = study.case.model.task == "image"
    pairs = []
    for word in metrics.PRIORITIES:
        place = "decides_images" if images and word == "quality" else "decides"
        name = _first_known(metrics.listed(place, word), study)
        if name is not None:
            pairs.append((word, name))
    return tuple(pairs)


def _first_known(names: Iterable[str], study: Study) -> str | None:
    """The first metric that the baseline has; quality metrics that only candidates have (KL) count
    too.
    """
    done = study.done()
    baseline = next((trial for trial in done if trial.is_baseline), None)
    for name in names:
        measurement = None if baseline is None else asked(baseline, name)
        if measurement is not None and _usable(name, measurement.value):
            return name
        defined = metrics.metric(name).defined is not None
        if defined and any(trial.value(name) is not None for trial in done):
            return name
    return None


def _usable(name: str, value: float | None) -> bool:
    by_loss = metrics.metric(name).halving_loss is not None
    return value is not None and (by_loss or value > 0)


def gain(word: str, name: str, trial: Trial, rival: Trial) -> Gain | None:
    """How much better `trial` is than `rival` on the metric `name`, as the one judge of trials has
    it (core.verdict.against); None when they cannot be compared."""
    judgement = against(trial, rival, name)
    if judgement.verdict == "not comparable":
        return None
    ends = (judgement.difference, judgement.difference_low, judgement.difference_high)
    metric = metrics.metric(name)
    if metric.halving_loss is None or metric.geometric:
        ends = (_logarithm(judgement.ratio), _logarithm(judgement.low), _logarithm(judgement.high))
    centre, low, high = (None if end is None else end * points(name) for end in ends)
    if centre is None:
        return None
    spread = None if low is None or high is None else abs(high - low) / 2
    return Gain(word, name, centre, spread)


def points(name: str) -> float:
    """What one unit of change is worth: of the metric itself for quality, of the natural logarithm
    for perplexity and everything that counts by its ratio. Negative where less is better."""
    metric = metrics.metric(name)
    return (-1.0 if metric.better == "lower" else 1.0) / (metric.halving_loss or math.log(2))


def _logarithm(ratio: float | None) -> float | None:
    return math.log(ratio) if ratio is not None and 0 < ratio < math.inf else None


def utilities(study: Study) -> dict[str, float]:
    """Utility by trial id for every finished trial; empty when the baseline has not finished."""
    weight = study.priorities.weight
    return {
        trial_id: sum(weight(word) * gained for word, gained in by_word.items())
        for trial_id, by_word in gains(study, axes(study)).items()
    }


def gains(study: Study, pairs: tuple[tuple[str, str], ...]) -> dict[str, dict[str, float]]:
    """The gain of every finished trial by its id and by word, for (word, metric) pairs as of
    `axes`; what cannot be judged is the worst of the others. Empty when the baseline has not
    finished.
    """
    done = study.done()
    baseline = next((trial for trial in done if trial.is_baseline), None)
    if baseline is None:
        return {}
    by_trial: dict[str, dict[str, float]] = {trial.id: {} for trial in done}
    for word, name in pairs:
        known = {trial.id: gain(word, name, trial, baseline) for trial in done}
        worst = min([0.0, *(row.gain for row in known.values() if row is not None)])
        for trial_id, row in known.items():
            by_trial[trial_id][word] = worst if row is None else row.gain
    return by_trial


def lead(study: Study, winner: Trial, other: Trial) -> tuple[float, float | None]:
    """By how much `winner`'s utility exceeds `other`'s, and half the width of that difference's 95
    % interval.

    The baseline cancels out. Times come from the same rounds, so their errors add up; those of the
    other words are taken as independent: their squares add up.
    """
    total, squares, timed, known = 0.0, 0.0, 0.0, True
    for word, name in axes(study):
        weight = study.priorities.weight(word)
        judged = gain(word, name, winner, other)
        if judged is None or judged.spread is None:
            known = False
        if judged is not None:
            total += weight * judged.gain
            wide = weight * (judged.spread or 0.0)
            if metrics.metric(name).timed:
                timed += wide
            else:
                squares += wide**2
    return total, math.hypot(timed, math.sqrt(squares)) if known else None
