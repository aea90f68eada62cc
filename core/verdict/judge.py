"""Is a difference real? The ratio of two measurements with a 95 % interval, and the verdict.

Knows no trials and no layout: core.verdict.against says which numbers belong together,
core.verdict.compare sets them side by side. Times taken in turns and quality on the same text are
judged by their pairs (core.verdict.pairs); independent samples are resampled, numbers that state
only bounds are combined by MOVER (core.statistics.intervals), exact numbers are compared exactly.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from core.format import plain
from core.measurement import Measurement
from core.metrics import Metric
from core.statistics.intervals import mover_difference, mover_ratio, ratio_of_medians
from core.statistics.paired import Paired
from core.statistics.proportions import mcnemar_exact
from core.verdict.comparison import UNPROJECTED, Judgement
from core.verdict.pairs import (
    MIN_SAMPLES,
    Ratio,
    bounds_of,
    can_resample,
    in_turns,
    is_exact,
    on_the_same,
)

# A smaller relative change than this is shown as 0 %: it is never called better or worse.
VISIBLE = 0.0005
SIGNIFICANT = 0.05
# Which numbers belong together: `turns` when the baseline was measured between the candidate's
# rounds, `common` when both were measured between rounds of one third plan, `apart` else.
PAIRINGS = ("turns", "common", "apart")
# What two copies of one plan may differ by beyond the noise of their samples, from where memory
# happens to lie and what the process did before (`python -m tests.evidence aa` measures it): a
# smaller difference is never called one.
FLOORS = {"turns": 0.01, "common": 0.02, "apart": 0.08}


@lru_cache(maxsize=2048)
def judge(
    metric: Metric,
    candidate: Measurement | None,
    baseline: Measurement | None,
    pairing: str = "apart",
    floor: float = 0.0,
    model_error: float = 1.0,
) -> Judgement:
    """The verdict on `candidate` against `baseline`, both measurements of `metric`.

    `better` or `worse` only where the 95 % interval of the ratio excludes 1 (that of the difference
    excludes 0, where the baseline is 0 or an interval reaches it and no ratio exists), the change
    does not read as 0 and, for what was timed, the ratio's distance from 1 exceeds the floor of its
    `pairing` (FLOORS). `model_error` is the factor by which the ratio of two projections may be
    wrong beyond what was measured (core.predict.projection).
    `floor` is what two correct programs of the unchanged model differ by (core.verdict.against), in
    the metric's unit: an interval of the difference that is not above it is noise.
    """
    if candidate is None or candidate.value is None:
        return Judgement("not comparable", why=_missing("this trial", candidate))
    if baseline is None or baseline.value is None:
        return Judgement("not comparable", why=_missing("the baseline", baseline))
    if candidate.origin != baseline.origin:
        why = f"this number is {candidate.origin}, the baseline's is {baseline.origin}"
        return Judgement("not comparable", why=why)
    if is_exact(candidate) and is_exact(baseline):
        return _of_exact(metric, candidate.value, baseline.value)
    if metric.judged == "paired":
        paired = on_the_same(metric, candidate, baseline, pairing)
        if paired is not None:
            judgement = _of_pairs(metric, paired)
            return _above_floor(metric, judgement, paired.difference_bounds, floor)
    ratio = _ratio(candidate.value, baseline.value)
    taken = in_turns(metric, candidate, baseline, pairing)
    if taken is not None and taken[1] is None:
        return Judgement("too few runs", taken[0], why=_too_few(metric, candidate))
    if taken is None and candidate.origin == "projected" and ratio is not None:
        taken = (ratio, ratio, ratio)
    if candidate.origin == "projected" and taken is not None:
        return _of_projection(metric, taken, model_error)
    if taken is not None:
        return _of_ratio(metric, taken, pairing)
    return _apart(metric, candidate, baseline, ratio, floor)


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference > 0 and value > 0 else None


def _of_exact(metric: Metric, value: float, reference: float) -> Judgement:
    ratio = value / reference if reference > 0 and value >= 0 else None
    change = value - reference
    same = value == reference or (ratio is not None and abs(ratio - 1) < VISIBLE)
    word = "same" if same else _direction(metric, change)
    return Judgement(word, ratio, ratio, ratio, "", change, change, change)


def _apart(
    metric: Metric,
    candidate: Measurement,
    baseline: Measurement,
    ratio: float | None,
    floor: float,
) -> Judgement:
    """Judged from two measurements that were not taken together."""
    value, reference = candidate.value, baseline.value
    assert value is not None
    assert reference is not None
    spread, reference_spread = bounds_of(candidate), bounds_of(baseline)
    change: tuple[float, float | None, float | None] = (value - reference, None, None)
    if spread is not None and reference_spread is not None:
        change = (value - reference, *mover_difference(value, spread, reference, reference_spread))
    spreads = (spread, reference_spread)
    judgement = _apart_ratio(metric, candidate, baseline, ratio, spreads, change, floor)
    return replace(
        judgement, difference=change[0], difference_low=change[1], difference_high=change[2]
    )


def _apart_ratio(
    metric: Metric,
    candidate: Measurement,
    baseline: Measurement,
    ratio: float | None,
    spreads: tuple[tuple[float, float] | None, tuple[float, float] | None],
    change: tuple[float, float | None, float | None],
    floor: float,
) -> Judgement:
    """The verdict of _apart: by the ratio where there is one, by the difference `change` else."""
    resampled = can_resample(candidate) and can_resample(baseline)
    if resampled and ratio is not None and min(candidate.samples + baseline.samples) > 0:
        above, below = np.array(candidate.samples), np.array(baseline.samples)
        low, high = ratio_of_medians(above, below, metric.name)
        return _of_ratio(metric, (ratio, low, high), "apart")
    spread, reference_spread = spreads
    value, reference = candidate.value, baseline.value
    if spread is None or reference_spread is None or value is None or reference is None:
        return Judgement("too few runs", ratio, why=_too_few(metric, candidate))
    if ratio is not None and min(value, spread[0], reference_spread[0]) > 0:
        low, high = mover_ratio(value, spread, reference, reference_spread)
        timed = candidate.origin == "measured"
        return _of_ratio(metric, (ratio, low, high), "apart" if timed else "")
    _, least, most = change
    assert least is not None
    assert most is not None
    why = "judged by the difference: the numbers reach 0, where a ratio says nothing"
    judgement = Judgement(_verdict(metric, least, most), why=why)
    return _above_floor(metric, judgement, (least, most), floor)


def _too_few(metric: Metric, candidate: Measurement) -> str:
    if metric.quantile != 0.5:
        share = f"{metric.quantile:.0%}".replace("%", " %")
        return f"{candidate.n} samples are too few for an interval around the {share} quantile"
    return f"an interval needs at least {MIN_SAMPLES} runs of both"


def _of_pairs(metric: Metric, paired: Paired) -> Judgement:
    """The verdict from the interval of the paired difference, which exists at 0 too; for items
    McNemar's exact test must agree, which a score interval of few changed items may not."""
    low, high = paired.difference_bounds
    ratio_low, ratio_high = paired.ratio_bounds or (None, None)
    word = _verdict(metric, low, high)
    how = f"paired over {paired.n} {paired.unit}: {paired.method}"
    if paired.changed is not None:
        chance = mcnemar_exact(*paired.changed)
        how += f"; McNemar's exact test p = {chance:.2g}"
        if chance >= SIGNIFICANT:
            word = "within noise"
    small = paired.ratio is not None and abs(paired.ratio - 1) < VISIBLE
    if paired.difference == 0 or (small and metric.unit != "nat"):
        word = "same" if low == high else "within noise"
    return Judgement(word, paired.ratio, ratio_low, ratio_high, how, paired.difference, low, high)


def _above_floor(
    metric: Metric, judgement: Judgement, difference: tuple[float, float], floor: float
) -> Judgement:
    """The judgement on a `difference` (its interval), which tells nothing up to the `floor`."""
    if floor <= 0:
        return judgement
    shown = f"{plain(floor)} {metric.unit}".rstrip()
    programs = "two correct programs of the unchanged model differ by"
    verdict, why = judgement.verdict, f"{judgement.why}; {programs} up to {shown}"
    if verdict in ("better", "worse") and min(map(abs, difference)) <= floor:
        verdict = "within noise"
        why = f"within the floor of {shown}: {programs} as much; {judgement.why}"
    return replace(judgement, verdict=verdict, why=why)


def _of_projection(metric: Metric, taken: Ratio, model_error: float) -> Judgement:
    """The ratio of two projections: what both take from the same model of the target cancels, and
    `model_error` is what may remain."""
    ratio, low, high = taken
    low, high = (low or ratio) / model_error, (high or ratio) * model_error
    why = (
        "the ratio of what was carried over: what the model of one target gets wrong for both plans"
        f" cancels, a factor of {model_error:g} may remain"
    )
    if ratio == low == high == 1.0:
        return Judgement("same", ratio, low, high, why)
    found_word = _verdict(metric, low - 1, high - 1)
    word = UNPROJECTED if found_word == "within noise" else found_word
    return Judgement(word, ratio, low, high, why)


def _of_ratio(metric: Metric, taken: Ratio, pairing: str) -> Judgement:
    """The verdict on a ratio with its interval; `pairing` is empty where nothing was timed."""
    ratio, low, high = taken
    assert low is not None
    assert high is not None
    judgement = Judgement(_verdict(metric, low - 1, high - 1), ratio, low, high)
    floor = FLOORS[pairing] if pairing and metric.timed else 0.0
    if judgement.verdict in ("better", "worse") and abs(ratio - 1) <= max(floor, VISIBLE):
        why = f"two copies of one plan can differ by {floor:.0%} in this way of measuring"
        return replace(judgement, verdict="within noise", why=why if floor else "")
    return replace(judgement, why=_HOW.get(pairing, ""))


_HOW = {
    "turns": "the baseline was measured in turns with this trial, in one process",
    "common": "both were measured in turns with the unchanged model",
}


def _verdict(metric: Metric, low: float, high: float) -> str:
    """From the interval of a change around 0."""
    if low > 0 or high < 0:
        return _direction(metric, low if low > 0 else high)
    return "within noise"


def _direction(metric: Metric, change: float) -> str:
    """Whether a change upwards or downwards is good."""
    return "better" if (change > 0) == (metric.better == "higher") else "worse"


def _missing(whose: str, measurement: Measurement | None) -> str:
    """Why a number is not there, with the measurement's own reason."""
    reason = f": {measurement.method}" if measurement is not None and measurement.method else ""
    return f"{whose} has no such number{reason}"
