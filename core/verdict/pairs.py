"""Which samples of two measurements belong together, what their pairs say (the ratio of times taken
in turns, the paired difference of quality on the same text), and how sure one alone is. Judges
nothing: core.verdict.judge does.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from core import metrics
from core.measurement import Measurement, quantile_interval
from core.metrics import Metric
from core.statistics.interleave import quotient, ratio_interval
from core.statistics.intervals import ratio_of_quantiles
from core.statistics.paired import Paired, paired_interval

# Fewer runs have no interval.
MIN_SAMPLES = 3
# A ratio with its 95 % interval, None where there is none.
Ratio = tuple[float, float | None, float | None]


def in_turns(
    metric: Metric, candidate: Measurement, baseline: Measurement, pairing: str
) -> Ratio | None:
    """(ratio, low, high) from interleaved pairs; None where there are none, or too few. A tail's
    interval is None where its samples allow none."""
    if metric.judged == "paired" or pairing == "apart":
        return None
    if pairing == "turns":
        return _pairs(metric, candidate)
    above, below = _pairs(metric, candidate), _pairs(metric, baseline)
    if above is None or below is None:
        return None
    if above[1] is None or above[2] is None or below[1] is None or below[2] is None:
        return above[0] / below[0], None, None
    return quotient((above[0], above[1], above[2]), (below[0], below[1], below[2]))


def _pairs(metric: Metric, measurement: Measurement) -> Ratio | None:
    ours, theirs = measurement.samples, measurement.reference
    if not ours or len(ours) != len(theirs) or min(*ours, *theirs, 1.0) <= 0:
        return None
    if metric.quantile == 0.5:
        return ratio_interval(ours, theirs)
    return _tail(ours, theirs, metric.quantile, metric.name)


@lru_cache(maxsize=1024)
def _tail(ours: tuple[float, ...], theirs: tuple[float, ...], q: float, stream: str) -> Ratio:
    """As ratio_interval, of the `q` quantiles."""
    above, below = np.array(ours), np.array(theirs)
    ratio = float(np.quantile(above, q) / np.quantile(below, q))
    if quantile_interval(ours, q) is None:
        return ratio, None, None
    return ratio, *ratio_of_quantiles(above, below, q, stream)


def on_the_same(
    metric: Metric, candidate: Measurement, baseline: Measurement, pairing: str
) -> Paired | None:
    """Quality compared window by window, or item by item; None where the data differ."""
    if candidate.origin != "measured":
        return None
    theirs = candidate.reference if pairing == "turns" else ()
    if not theirs and candidate.same_data(baseline):
        theirs = baseline.samples
    return paired_interval(metric.name, candidate.samples, theirs) if theirs else None


def is_exact(measurement: Measurement) -> bool:
    """Whether the number has no noise: one sample of a counted metric, or bounds of no width."""
    value = measurement.value
    if measurement.bounds is not None:
        return measurement.bounds == (value, value)
    counted = metrics.metric(measurement.metric).judged == "exact"
    return counted and measurement.n == 1 and measurement.origin == "measured"


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
    bounds = measurement.interval()
    if bounds is None or not all(math.isfinite(bound) for bound in bounds):
        return None
    return min(bounds[0], value), max(bounds[1], value)
