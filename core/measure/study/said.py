"""What a study says of a trial that has ended, in one line."""

from __future__ import annotations

from core import format as formats
from core.metrics import listed, metric
from core.study import Study, Trial
from core.verdict.against import against
from core.verdict.anchor import anchored


def line(study: Study, trial: Trial) -> str:
    """The trial's place, state, plan and reason, and its main numbers, each with its ratio to the
    unchanged model's: those at the study's baseline, with which the ratios agree.
    """
    ids = [each.id for each in study.trials]
    study = anchored(study)
    trial = study.trial(trial.id) or trial
    head = f"[{ids.index(trial.id) + 1}/{len(ids)}] {trial.state:9} {trial.plan.title}"
    if trial.reason:
        head += f": {trial.reason}"
    numbers = [text for name in listed("run_table") if (text := _number(study, trial, name))]
    return head + ("".join(f"; {text}" for text in numbers) if trial.state == "done" else "")


def _number(study: Study, trial: Trial, name: str) -> str:
    """`TTFT 7.41 ms (0.97x)`; empty where it was not measured."""
    value = trial.value(name)
    if value is None:
        return ""
    entry = metric(name)
    text = f"{entry.short or entry.label} {formats.of_metric(name, value)}"
    baseline = study.baseline
    if baseline is None or baseline.state != "done" or trial.is_baseline:
        return text
    ratio = against(trial, baseline, name).ratio
    return text if ratio is None else f"{text} ({ratio:.2f}x)"
