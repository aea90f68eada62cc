"""Which two metrics the report's trade-off chart shows."""

from __future__ import annotations

from collections.abc import Sequence

from core import metrics
from core.priorities import Priorities
from core.study import Trial


def choose_axes(trials: Sequence[Trial], priorities: Priorities) -> tuple[str, str] | None:
    """What is paid (x) against what is got (y); None when not two metrics are known of two trials.

    x is the weightiest of latency, throughput, size, energy and cost that is known; y is quality,
    or the next weightiest when quality is unknown (random weights).
    """
    costs = [word for word in metrics.PRIORITIES if word != "quality"]
    costs.sort(key=lambda word: -priorities.weight(word))
    paid = [name for word in costs if (name := _known(trials, metrics.listed("decides", word)))]
    quality = _known(trials, metrics.listed("report_quality"))
    pair = [*paid[:1], quality] if quality else paid[:2]
    return (pair[0], pair[1]) if len(pair) == 2 and pair[0] and pair[1] else None


def _known(trials: Sequence[Trial], names: Sequence[str]) -> str | None:
    """The first metric that at least two trials have a value for."""
    for name in names:
        if sum(trial.value(name) is not None for trial in trials) >= 2:
            return name
    return None
