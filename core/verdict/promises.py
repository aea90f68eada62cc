"""Settings that promise a limit, checked on what the trial really measured."""

from __future__ import annotations

from core import format as shown
from core import metrics
from core.study import Trial


def broken(trial: Trial) -> tuple[str, ...]:
    """A sentence for each technique whose promised limit the trial's own numbers do not keep."""
    said = []
    for technique in trial.plan.techniques:
        limit = technique.promise()
        found = None if limit is None else trial.metric(limit.metric)
        if limit is None or found is None or found.value is None or limit.passes(found.value):
            continue
        low, high = found.interval() or (None, None)
        spread = shown.interval(found.value, low, high, found.unit, found.metric)
        label = metrics.metric(limit.metric).label
        relation = "at most" if limit.relation == "<=" else "at least"
        said.append(
            f"{technique.name} was asked for {label} of {relation}"
            f" {shown.of_metric(limit.metric, limit.value)} and reached"
            f" {shown.of_metric(limit.metric, found.value)}"
            f"{f' ({spread})' if spread and low != high else ''} on the judged data"
        )
    return tuple(said)
