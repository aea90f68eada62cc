"""Is a difference real? The ratio of two measurements with a 95 % interval, and the verdict.

Knows no trials and no layout (core.compare has those, and says which numbers belong together).
Times taken in turns are judged pair by pair (core.interleave), quality on the same tokens or items
likewise (core.paired); independent samples are resampled;
numbers that state only bounds are combined by MOVER; exact numbers are compared exactly.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from core.format import plain
from core.interleave import quotient, ratio_interval
from core.measurement import Measurement
from core.metrics import Metric
from core.paired import Paired, paired_interval

VERDICTS = ("better", "worse", "same", "within noise", "too few runs", "not comparable", "baseline")
# Counted, not timed: one sample is the whole truth.
EXACT = frozenset({"model_bytes", "memory_bytes", "kv_bytes", "disk_bytes"})
DRAWS = 4000
MIN_SAMPLES = 3
# Which numbers belong together: `turns` when the baseline was measured between the candidate's
# rounds, `common` when both were measured between rounds of one third plan, `apart` else.
PAIRINGS = ("turns", "common", "apart")
# What two copies of one plan may differ by beyond the noise of their samples, from where memory
# happens to lie and what the process did before (tests/core/measure/figure_aa.py measures it): a
# smaller difference is never called one.
FLOORS = {"turns": 0.01, "common": 0.02, "apart": 0.08}
TIMED = frozenset({"latency", "throughput", "energy", "cost"})


@dataclass(frozen=True)
class Judgement:
    """`ratio` is candidate / baseline, `low` and `high` its 95 % interval.

    `why` says what kept us from a verdict, or from judging by the ratio.
    """

    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


@lru_cache(maxsize=4096)
def judge(
    metric: Metric,
    candidate: Measurement | None,
    baseline: Measurement | None,
    pairing: str = "apart",
    floor: float = 0.0,
) -> Judgement:
    """The verdict on `candidate` against `baseline`, both measurements of `metric`.

    `better` or `worse` only where the 95 % interval of the ratio excludes 1 (that of the difference
    excludes 0, where the baseline is 0 or an interval reaches it and no ratio exists) and, for
    what was timed, the ratio's distance from 1 exceeds the floor of its `pairing` (FLOORS).
    `floor` is what two correct programs of the unchanged model differ by (core.floors.floor_of), in
    the metric's unit: an interval of the difference that is not above it is noise.
    """
    if candidate is None or candidate.value is None:
        return Judgement("not comparable", why=_missing("this trial", candidate))
    if baseline is None or baseline.value is None:
        return Judgement("not comparable", why=_missing("the baseline", baseline))
    if candidate.origin != baseline.origin:
        why = f"this number is {candidate.origin}, the baseline's is {baseline.origin}"
        return Judgement("not comparable", why=why)
    value, reference = candidate.value, baseline.value
    ratio = value / reference if reference > 0 and value >= 0 else None
    if is_exact(candidate) and is_exact(baseline):
        if value == reference:
            return Judgement("same", ratio, ratio, ratio)
        return Judgement(_direction(metric, value - reference), ratio, ratio, ratio)
    if metric.group == "quality":
        paired = _on_the_same(metric, candidate, baseline, pairing)
        if paired is not None:
            judgement = _of_pairs(metric, paired)
            return _above_floor(metric, judgement, paired.difference_bounds, floor)
    taken = _in_turns(candidate, baseline, pairing)
    if taken is not None:
        return _of_ratio(metric, taken, pairing)
    resampled = can_resample(candidate) and can_resample(baseline)
    if resampled and ratio is not None and min(candidate.samples + baseline.samples) > 0:
        above, below = np.array(candidate.samples), np.array(baseline.samples)
        low, high = ratio_of_medians(above, below, metric.name)
        return _of_ratio(metric, (ratio, low, high), "apart")
    spread, reference_spread = bounds_of(candidate), bounds_of(baseline)
    if spread is None or reference_spread is None:
        why = f"an interval needs at least {MIN_SAMPLES} runs of both"
        return Judgement("too few runs", ratio, why=why)
    if ratio is not None and min(value, spread[0], reference_spread[0]) > 0:
        low, high = mover_ratio(value, spread, reference, reference_spread)
        timed = candidate.origin == "measured"
        return _of_ratio(metric, (ratio, low, high), "apart" if timed else "")
    low, high = mover_difference(value, spread, reference, reference_spread)
    why = "judged by the difference: the numbers reach 0, where a ratio says nothing"
    judgement = Judgement(_verdict(metric, low, high), None, why=why)
    return _above_floor(metric, judgement, (low, high), floor)


def _in_turns(
    candidate: Measurement, baseline: Measurement, pairing: str
) -> tuple[float, float, float] | None:
    """(ratio, low, high) from interleaved pairs; None where there are none, or too few."""
    if candidate.origin != "measured" or candidate.pooled is not None:
        return None
    if pairing == "turns":
        return _pairs(candidate)
    if pairing == "common" and baseline.pooled is None:
        above, below = _pairs(candidate), _pairs(baseline)
        return None if above is None or below is None else quotient(above, below)
    return None


def _pairs(measurement: Measurement) -> tuple[float, float, float] | None:
    ours, theirs = measurement.samples, measurement.reference
    if len(ours) != len(theirs) or min(*ours, *theirs, 1.0) <= 0:
        return None
    return ratio_interval(ours, theirs)


def _on_the_same(
    metric: Metric, candidate: Measurement, baseline: Measurement, pairing: str
) -> Paired | None:
    """Quality compared window by window, or item by item; None where the data differ."""
    if candidate.origin != "measured":
        return None
    theirs = candidate.reference if pairing == "turns" else ()
    if not theirs and candidate.method == baseline.method and candidate.n == baseline.n:
        theirs = baseline.samples
    return paired_interval(metric.name, candidate.samples, theirs) if theirs else None


def _of_pairs(metric: Metric, found: Paired) -> Judgement:
    """The verdict from the interval of the paired difference, which exists at 0 too."""
    low, high = found.difference_bounds
    ratio_low, ratio_high = found.ratio_bounds or (None, None)
    how = f"paired over {found.n} {found.unit}: {found.method}"
    return Judgement(_verdict(metric, low, high), found.ratio, ratio_low, ratio_high, how)


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


def _of_ratio(metric: Metric, found: tuple[float, float, float], pairing: str) -> Judgement:
    """The verdict on a ratio with its interval; `pairing` is empty where nothing was timed."""
    ratio, low, high = found
    verdict = _verdict(metric, low - 1, high - 1)
    floor = FLOORS[pairing] if pairing and metric.group in TIMED else 0.0
    if verdict in ("better", "worse") and abs(ratio - 1) <= floor:
        why = f"two copies of one plan can differ by {floor:.0%} in this way of measuring"
        return Judgement("within noise", ratio, low, high, why)
    return Judgement(verdict, ratio, low, high, _HOW.get(pairing, ""))


def is_exact(measurement: Measurement) -> bool:
    """Whether the number has no noise: one sample of a counted metric, or bounds of no width."""
    value = measurement.value
    if measurement.bounds is not None:
        return measurement.bounds == (value, value)
    return measurement.metric in EXACT and measurement.n == 1 and measurement.origin == "measured"


def can_resample(measurement: Measurement) -> bool:
    """Whether the raw samples carry the whole uncertainty, and are enough."""
    return (
        measurement.origin == "measured"
        and measurement.pooled is None
        and measurement.bounds is None
        and measurement.n >= MIN_SAMPLES
    )


def bounds_of(measurement: Measurement) -> tuple[float, float] | None:
    """The 95 % interval, widened to hold the value; of no width when exact, None when unknown."""
    value = measurement.value
    if value is None:
        return None
    if is_exact(measurement):
        return value, value
    found = measurement.interval()
    if found is None or not all(math.isfinite(bound) for bound in found):
        return None
    return min(found[0], value), max(found[1], value)


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
    return math.exp(low), math.exp(high)


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
