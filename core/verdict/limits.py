"""Limits checked on what trials measured: the study's hard ones, and those that a technique's
settings promise. Who keeps them, and sentences for those who do not.
"""

from __future__ import annotations

from core import format as shown
from core import metrics
from core.priorities import Limit
from core.study import Study, Trial
from core.verdict.against import asked


def failures(trial: Trial, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """The limits that `trial` does not pass, those with an unknown value included."""
    return tuple(limit for limit in limits if not limit.passes(known(trial, limit.metric)))


def known(trial: Trial, name: str) -> float | None:
    """The value of a metric for the workload as it is asked; the baseline's distance to itself is
    known without measuring it."""
    measurement = asked(trial, name)
    value = None if measurement is None else measurement.value
    if value is None and trial.is_baseline:
        return metrics.metric(name).defined
    return value


def limit_words(limit: Limit) -> str:
    """`KL to baseline at most 0.05 nat`."""
    relation = "at most" if limit.relation == "<=" else "at least"
    value = shown.of_metric(limit.metric, limit.value)
    return f"{label_of(limit.metric)} {relation} {value}"


def label_of(name: str) -> str:
    """A metric's label inside a sentence."""
    label = metrics.metric(name).label
    return label if label[:2].isupper() else label[0].lower() + label[1:]


def violation(trial: Trial, limits: tuple[Limit, ...]) -> str:
    parts = []
    for limit in failures(trial, limits):
        value = known(trial, limit.metric)
        if value is None:
            row = trial.metric(limit.metric)
            reason = f" ({row.method})" if row is not None and row.method else ""
            parts.append(
                f"{limit_words(limit)}: the value is unknown{reason}, and unknown never passes"
            )
        else:
            parts.append(f"{limit_words(limit)}: it has {shown.of_metric(limit.metric, value)}")
    return f"Misses {'; '.join(parts)}."


def nothing_passes(done: tuple[Trial, ...], study: Study) -> tuple[str, ...]:
    """Which limit nothing passed, with the nearest value; or that no trial passes all of them at
    once.
    """
    limits = study.priorities.limits
    sentences = []
    for limit in limits:
        if any(limit.passes(known(trial, limit.metric)) for trial in done):
            continue
        values = [
            (value, trial) for trial in done if (value := known(trial, limit.metric)) is not None
        ]
        if not values:
            sentences.append(
                f"No trial passes {limit_words(limit)}: it is unknown for all of them."
            )
            continue
        chosen = min if limit.relation == "<=" else max
        nearest, trial = chosen(values, key=lambda pair: pair[0])
        sentences.append(
            f"No trial passes {limit_words(limit)}: the nearest is "
            f"{shown.of_metric(limit.metric, nearest)} ({trial.plan.title})."
        )
    if sentences:
        return tuple(sentences)
    fewest = min(done, key=lambda trial: len(failures(trial, limits)))
    missed = ", ".join(map(limit_words, failures(fewest, limits)))
    return (
        f"No trial passes all {len(limits)} limits at once: {fewest.plan.title} "
        f"comes nearest and misses {missed}.",
    )


def broken(trial: Trial) -> tuple[str, ...]:
    """A sentence for each technique whose promised limit the trial's own numbers do not keep."""
    sentences = []
    for technique in trial.plan.techniques:
        limit = technique.promise()
        row = None if limit is None else trial.metric(limit.metric)
        if limit is None or row is None or row.value is None or limit.passes(row.value):
            continue
        low, high = row.interval() or (None, None)
        spread = shown.interval(row.value, low, high, row.unit, row.metric)
        label = metrics.metric(limit.metric).label
        relation = "at most" if limit.relation == "<=" else "at least"
        sentences.append(
            f"{technique.name} was asked for {label} of {relation}"
            f" {shown.of_metric(limit.metric, limit.value)} and reached"
            f" {shown.of_metric(limit.metric, row.value)}"
            f"{f' ({spread})' if spread and low != high else ''} on the judged data"
        )
    return tuple(sentences)
