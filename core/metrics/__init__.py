"""The one table of metrics: all that depends on a metric's name is a field of its entry.

Everything that shows, judges, projects or lists numbers asks here; metric.py says what the
fields are. A new metric is an entry in speed.py, cost.py, quality.py or run.py, and the code that
measures it.
"""

from __future__ import annotations

from core.errors import BadInput
from core.metrics.cost import COST
from core.metrics.metric import Metric
from core.metrics.quality import QUALITY
from core.metrics.run import RUN
from core.metrics.speed import SPEED

__all__ = ["BY_NAME", "METRICS", "PRIORITIES", "Metric", "floors", "listed", "metric", "projected"]

METRICS = (*SPEED, *COST, *QUALITY, *RUN)
BY_NAME = {metric.name: metric for metric in METRICS}
PRIORITIES = ("latency", "throughput", "size", "energy", "quality", "cost")


def metric(name: str) -> Metric:
    """The metric called `name`; BadInput names the known ones."""
    if name not in BY_NAME:
        raise BadInput(f"unknown metric {name!r}; known metrics: {', '.join(sorted(BY_NAME))}")
    return BY_NAME[name]


def listed(place: str, priority: str = "") -> tuple[str, ...]:
    """The names of the list `place` (a field of Places) in its order; only those that the user's
    word `priority` weighs, where one is given."""
    ranks = {entry.name: getattr(entry.places, place) for entry in METRICS}
    names = [name for name, rank in ranks.items() if rank]
    if priority:
        names = [name for name in names if BY_NAME[name].priority == priority]
    return tuple(sorted(names, key=ranks.__getitem__))


def projected(how: str) -> tuple[str, ...]:
    """The names of the metrics that come to another target in this way (Metric.projected)."""
    return tuple(entry.name for entry in METRICS if entry.projected == how)


def is_defined(name: str) -> bool:
    """Whether the unchanged model has the metric `name` to itself by definition."""
    return metric(name).defined is not None


def defined(name: str) -> float:
    """What the unchanged model has to itself by definition; ValueError where it has no such."""
    value = metric(name).defined
    if value is None:
        raise ValueError(f"{name} is not known of the unchanged model by definition")
    return value


def floors() -> tuple[str, ...]:
    """The names of the metrics that are floors of others."""
    return tuple(entry.floor for entry in METRICS if entry.floor)
