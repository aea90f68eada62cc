"""Trials side by side: a row per setting and metric, a cell per trial, judged by the baseline.

Owns the layout; who is better is core.verdict.against's to say, the drawing app's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core import format, ids, metrics
from core.errors import BadInput
from core.machine.stays import machines_of
from core.margin import Margin, non_inferiority
from core.measurement import Measurement
from core.metrics import Metric
from core.plan import settings
from core.study import Trial
from core.techniques import BY_NAME
from core.techniques.kinds import place
from core.verdict.against import against, reference, served_at
from core.verdict.comparison import ABSENT, Cell, Column, Comparison, Row
from core.verdict.environments import warnings as unlike_things


def compare(
    trials: Sequence[Trial],
    baseline_id: str,
    environments: Mapping[str, Mapping[str, Any] | None] | None = None,
    margins: Sequence[Margin] = (),
) -> Comparison:
    """Set `trials` beside each other, in their order, any number of them.

    `environments` gives the facts of environment ids, so that a warning can name what differs;
    `margins` are the losses of quality that the study accepts. BadInput when there is no trial, one
    is given twice, or the baseline is not among them.
    """
    if not trials:
        raise BadInput("nothing to compare: name at least one trial")
    named = [trial.id for trial in trials]
    twice = sorted({trial_id for trial_id in named if named.count(trial_id) > 1})
    if twice:
        raise BadInput(f"trial {twice[0]} is named twice: name each compared trial once")
    baseline = next((trial for trial in trials if trial.id == baseline_id), None)
    if baseline is None:
        known = ", ".join(named)
        raise BadInput(f"the baseline {baseline_id} is not among the compared trials: {known}")
    on = machines_of(trials, environments or {})
    columns = tuple(
        Column(
            trial.id,
            trial.study_id,
            trial.plan.title,
            trial.state,
            trial.reason,
            trial.id == baseline_id,
            on[trial.id].name if trial.id in on else "",
        )
        for trial in trials
    )
    rows = (
        *_setting_rows(trials, {trial_id: machine.name for trial_id, machine in on.items()}),
        *_metric_rows(trials, baseline, margins),
    )
    return Comparison(baseline_id, columns, rows, _warnings(trials, baseline, environments or {}))


def configuration(trial: Trial) -> dict[str, str]:
    """What was configured and what ran, as ordered key -> text: the setting rows of one trial."""
    case, served = trial.plan.case, trial.plan.case.workload
    texts = {
        "model": case.model.id,
        "revision": case.model.revision or ABSENT,
        "target": case.target.id,
        "workload": case.workload.id,
        "techniques": " + ".join(technique.name for technique in trial.plan.techniques) or "none",
    }
    for technique in trial.plan.techniques:
        for key, value in settings(technique).items():
            if key != "name":
                texts[f"{technique.name}.{key}"] = str(value)
    if served.task == "text":
        texts["prompt_tokens"] = str(served.prompt_tokens)
        texts["output_tokens"] = str(served.output_tokens)
    texts["concurrency"] = str(served_at(trial))
    texts["batch"] = str(trial.plan.batch)
    texts["seed"] = str(trial.plan.seed)
    ran = sorted({f"{run.op}: {run.name}" for run in trial.kernels})
    texts["kernels"] = ", ".join(ran) or ABSENT
    texts["environment"] = ", ".join(trial.environments) or ABSENT
    texts["attempt"] = str(trial.attempt)
    texts["state"] = trial.state
    return texts


_LABELS = {
    "model": "Model",
    "revision": "Weights",
    "target": "Target",
    "workload": "Workload",
    "techniques": "Techniques",
    "prompt_tokens": "Prompt tokens",
    "output_tokens": "Output tokens",
    "concurrency": "Requests at a time",
    "batch": "Served together, at most",
    "seed": "Seed",
    "kernels": "Kernels that ran",
    "machine": "Machine",
    "environment": "Environment",
    "attempt": "Attempt",
    "state": "State",
}


def _setting_rows(trials: Sequence[Trial], machines: Mapping[str, str]) -> Iterable[Row]:
    columns = [
        configuration(trial) | {"machine": machines.get(trial.id, ABSENT)} for trial in trials
    ]
    keys = sorted({key: None for column in columns for key in column}, key=_position)
    for key in keys:
        texts = [column.get(key, ABSENT) for column in columns]
        cells = tuple(
            Cell(trial.id, text, None if text == ABSENT else text)
            for trial, text in zip(trials, texts, strict=True)
        )
        name, _, field = key.partition(".")
        label = f"{name}: {field.replace('_', ' ')}" if field else _LABELS[key]
        yield Row(key, label, "setting", cells, len(set(texts)) > 1, group="configuration")


def _position(key: str) -> tuple[int, int]:
    """Technique settings stand right after the techniques, in the order in which they act."""
    order = list(_LABELS)
    name, _, field = key.partition(".")
    if not field:
        return order.index(key), 0
    return order.index("techniques"), 1 + place(BY_NAME[name].kind)


def _metric_rows(
    trials: Sequence[Trial], baseline: Trial, margins: Sequence[Margin]
) -> Iterable[Row]:
    for metric in metrics.METRICS:
        if any(trial.metric(metric.name) is not None for trial in trials):
            cells = tuple(_metric_cell(metric, trial, baseline, margins) for trial in trials)
            yield Row(
                metric.name,
                metric.label,
                "metric",
                cells,
                len({(cell.text, cell.origin) for cell in cells}) > 1,
                metric.group,
                metric.unit,
                "" if metric.unjudged else metric.better,
            )


def _metric_cell(metric: Metric, trial: Trial, baseline: Trial, margins: Sequence[Margin]) -> Cell:
    row = trial.metric(metric.name)
    if row is None:
        verdict = "baseline" if trial is baseline else "not comparable"
        why = "this trial has no such number"
        return Cell(trial.id, ABSENT, unit=metric.unit, verdict=verdict, why=why)
    spread = row.interval() or (None, None)
    text = "unavailable" if row.value is None else format.of_metric(metric.name, row.value)
    judgement = against(trial, baseline, metric.name)
    beside = reference(baseline, row)
    delta = change = None
    comparable = judgement.verdict not in ("baseline", "not comparable")
    if comparable and row.value is not None and beside is not None and beside.value is not None:
        # A ratio from interleaved pairs is nearer to the truth than that of two values taken apart.
        change = None if judgement.ratio is None else judgement.ratio - 1
        delta = (
            row.value - row.value / judgement.ratio if judgement.ratio else row.value - beside.value
        )
    margin = () if trial is baseline else _margin(metric, row, margins)
    return Cell(
        trial.id,
        text,
        row.value,
        spread[0],
        spread[1],
        row.n,
        row.unit or metric.unit,
        row.origin,
        row.method,
        delta,
        change,
        None if trial is baseline else judgement.ratio,
        None if trial is baseline else judgement.low,
        None if trial is baseline else judgement.high,
        judgement.verdict,
        judgement.why,
        *margin,
    )


def _margin(metric: Metric, measurement: Measurement, margins: Sequence[Margin]) -> tuple[str, ...]:
    """(word, sentence) of the margin that the study sets on `metric`; empty where it sets none."""
    margin = next((margin for margin in margins if margin.metric == metric.name), None)
    return () if margin is None else non_inferiority(metric, measurement, margin)


def _warnings(
    trials: Sequence[Trial], baseline: Trial, environments: Mapping[str, Mapping[str, Any] | None]
) -> tuple[str, ...]:
    sentences: list[str] = []
    for word, names in (
        ("models", [trial.plan.case.model.id for trial in trials]),
        ("targets", [trial.plan.case.target.id for trial in trials]),
        ("workloads", [_traffic(trial) for trial in trials]),
    ):
        distinct = list(dict.fromkeys(names))
        if len(distinct) > 1:
            sentences.append(f"The trials ran with different {word}: {', '.join(distinct)}.")
    sentences.extend(unlike_things(trials, environments))
    plans = ids.distinct({trial.id: trial.plan.title for trial in trials})
    if baseline.state != "done":
        sentences.append(f"The baseline is {baseline.state}: its numbers may be missing.")
    for trial in trials:
        if trial.state != "done" and trial is not baseline:
            reason = f": {trial.reason.rstrip('.')}" if trial.reason else ""
            sentences.append(f"{plans[trial.id]} is {trial.state}{reason}.")
    return tuple(sentences)


def _traffic(trial: Trial) -> str:
    workload = trial.plan.case.workload
    if workload.task != "text":
        return workload.id
    return f"{workload.id} ({workload.prompt_tokens} + {workload.output_tokens} tokens)"
