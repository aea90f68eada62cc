"""How far two equally correct programs of one model lie apart: the floor under which a measured
loss says nothing.

A 16-bit program rounds after every operation; another order of the same sums gives other roundings.
What the unchanged model loses to itself that way is measured with it
(core.measure.quality.floor) and kept as metrics of its own; which floor belongs to which metric
stands in core.metrics. Judging by it is core.verdict.judge's.
"""

from __future__ import annotations

from core.metrics import BY_NAME
from core.study import Trial


def floor_of(trial: Trial, metric: str) -> float:
    """The distance from what a model has to itself by definition (KL 0, agreement 1) that `trial`
    measured between two correct programs of the unchanged model: the far end of its 95 % interval.

    In the unit of `metric`, at least 0; 0.0 where the metric has no floor or none was measured.
    """
    entry = BY_NAME[metric]
    measurement = trial.metric(entry.floor) if entry.floor else None
    if measurement is None or measurement.value is None or entry.defined is None:
        return 0.0
    ends = (measurement.value, *(measurement.interval() or ()))
    return float(max(abs(end - entry.defined) for end in ends))


def floor_between(trial: Trial, baseline: Trial, metric: str) -> float:
    """The floor for judging `trial` against `baseline`: the larger of what both know."""
    return max(floor_of(trial, metric), floor_of(baseline, metric))
