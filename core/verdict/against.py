"""The one judge of trials: what one trial's metric says against another trial's.

Everything that chooses, sorts, draws or says which of two trials is better asks here: utility,
frontier, recommendation, comparison, pages, reports and the JSON documents. The statistics are
core.verdict.judge's; here it is decided which numbers belong together.
"""

from __future__ import annotations

from dataclasses import replace

from core import metrics
from core.condition import concurrency
from core.measurement import Measurement
from core.metrics import BY_NAME, Metric
from core.model import DecoderShape
from core.predict.projection import ratio_error
from core.study import Trial
from core.verdict.comparison import Judgement
from core.verdict.judge import judge


def against(trial: Trial, baseline: Trial, name: str) -> Judgement:
    """The verdict on the metric `name` of `trial` against `baseline`'s, for the workload as it is
    asked; `baseline` as a verdict where both are the same trial."""
    metric = metrics.metric(name)
    if trial.id == baseline.id:
        return Judgement("baseline", 1.0, 1.0, 1.0, "", 0.0, 0.0, 0.0)
    ours = asked(trial, name)
    why = _unlike(metric, trial, baseline)
    if why:
        return Judgement("not comparable", why=why)
    if ours is None:
        return Judgement("not comparable", why=_not_asked(trial, name))
    theirs = reference(baseline, ours)
    if theirs is None and asked(baseline, name) is None and baseline.metric(name) is not None:
        return Judgement("not comparable", why=_not_asked(baseline, name))
    error = ratio_error(trial.plan, baseline.plan) if ours.origin == "projected" else 1.0
    floor = floor_between(trial, baseline, name)
    return judge(metric, ours, theirs, pairing(trial, baseline), floor, error)


def asked(trial: Trial, name: str) -> Measurement | None:
    """The measurement of `name` at the concurrency that the workload asks for; None when there is
    none. A trial that was timed at another one counts by what it measured at the workload's."""
    measurement = trial.metric(name)
    wanted = trial.plan.case.workload.concurrency
    if measurement is None or not metrics.metric(name).timed or served_at(trial) == wanted:
        return measurement
    if measurement.origin == "unavailable":
        return measurement
    return next((row for row in trial.curve(name) if row.condition == concurrency(wanted)), None)


def served_at(trial: Trial) -> int:
    """How many requests the trial's rounds kept in flight. Older trials do not state it: then a
    batch was timed with as many requests as it has places."""
    stated = trial.value("concurrency")
    if stated is not None:
        return int(stated)
    return max(trial.plan.case.workload.concurrency, trial.plan.batch)


def pairing(trial: Trial, baseline: Trial) -> str:
    """How the trial's numbers belong with the baseline's, one of core.verdict.judge.PAIRINGS: the
    unchanged model of a trial's own case was measured in turns with it."""
    if trial.plan.case != baseline.plan.case or trial.plan.seed != baseline.plan.seed:
        return "apart"
    return "turns" if baseline.is_baseline else "common"


def reference(baseline: Trial, judged: Measurement) -> Measurement | None:
    """The baseline's number that `judged` is compared with; what the unchanged model has to itself
    is known by definition, whatever the origin of the number that is judged."""
    row = asked(baseline, judged.metric)
    constant = metrics.metric(judged.metric).defined
    if row is None and constant is not None and baseline.is_baseline and judged.value is not None:
        return replace(
            judged,
            samples=(),
            reference=(),
            method="by definition",
            pooled=constant,
            bounds=(constant, constant),
        )
    return row


def _unlike(metric: Metric, trial: Trial, baseline: Trial) -> str:
    """Why the two numbers speak of different things; empty when they speak of the same."""
    ours, theirs = trial.plan.case, baseline.plan.case
    if ours.model.task != theirs.model.task:
        return f"{ours.model.id} and {theirs.model.id} do different tasks"
    if metric.unjudged:
        return metric.unjudged
    if metric.defined is not None and ours.model != theirs.model:
        return "each model was compared with its own baseline"
    if metric.judged == "paired" and ours.data != theirs.data:
        return "quality was judged on different data"
    if metric.by_tokenizer and _vocabulary(trial) != _vocabulary(baseline):
        return "the tokenizers differ: compare nats per byte"
    return ""


def _not_asked(trial: Trial, name: str) -> str:
    if trial.metric(name) is None:
        return "this trial has no such number"
    wanted = trial.plan.case.workload.concurrency
    return (
        f"{trial.plan.title} was timed with {served_at(trial)} requests at a time, and the workload"
        f" asks for {wanted}"
    )


def _vocabulary(trial: Trial) -> int | None:
    shape = trial.plan.case.model.shape
    return shape.vocabulary if isinstance(shape, DecoderShape) else None


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
