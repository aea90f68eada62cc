"""A study and its plans: from the user's words, or from a study whose choice is not proven."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core import techniques
from core.catalogue import models, workloads
from core.data.arrivals import with_arrivals
from core.data.files import datasets_for
from core.errors import BadInput
from core.ids import new_id, now
from core.machine import targets
from core.measure.child.devices import absent
from core.plan import Case, Plan, parse_setting
from core.planner.presets import PRESETS
from core.planner.presets import preset as find_preset
from core.planner.search import propose
from core.predict import fit
from core.priorities import Priorities
from core.study import Study
from core.techniques.kinds import refuse
from core.verdict.recommend import recommend


def plan_study(
    model_id: str,
    target_id: str,
    workload_id: str,
    priorities: Priorities,
    technique_texts: tuple[str, ...] = (),
    preset: str = "quick",
    seed: int = 0,
    budget_s: float | None = None,
    data: tuple[str, ...] = (),
    arrival: str = "",
) -> tuple[Study, tuple[Plan, ...]]:
    """A study and its plans from the user's words; BadInput names the word that cannot be used.

    `technique_texts` are techniques or stacks of them (core.techniques.parse_stack); `data` are
    files or lm-eval tasks (core.data.files) to judge quality on; `arrival` are requests per second
    or `trace:FILE` (core.data.arrivals), measured beside the workload's back-to-back requests.
    """
    find_preset(preset)
    workload = with_arrivals(workloads.resolve(workload_id), arrival)
    case = Case(models.resolve(model_id), targets.resolve(target_id), workload)
    _refuse_unfit(case)
    case = replace(case, data=datasets_for(data, case.model))
    wanted = tuple(
        tuple(
            techniques.parse(part).within(priorities.limits, parse_setting(part)[1])
            for part in techniques.parse_stack(text)
        )
        for text in technique_texts
    )
    plans = propose(case, preset, wanted, seed, priorities.limits)
    reasons = [refuse(plan) or fit(plan) for plan in plans]
    if all(reason is not None for reason in reasons):
        raise BadInput(str(reasons[0]))
    study = Study(new_id("s"), case, priorities, preset, budget_s, seed, None, now())
    return study, plans


def _refuse_unfit(case: Case) -> None:
    """Refuse a case whose parts do not belong together."""
    model, workload = case.model, case.workload
    if model.task != workload.task:
        fitting = [known.id for known in workloads.list_workloads() if known.task == model.task]
        raise BadInput(
            f"workload {workload.id} is for {workload.task} models,"
            f" {model.id} is for {model.task}; use one of: {', '.join(fitting)}"
        )
    if model.task == "text":
        needed, context = workload.prompt_tokens + workload.output_tokens, model.decoder().context
        if needed > context:
            raise BadInput(
                f"workload {workload.id} needs {needed} tokens of context"
                f" ({workload.prompt_tokens} prompt + {workload.output_tokens} output),"
                f" {model.id} has {context}"
            )
        if workload.trace_tokens > context:
            raise BadInput(
                f"--arrival: a request of the trace {workload.trace} needs"
                f" {workload.trace_tokens} tokens of context, {model.id} has {context}"
            )


def plan_again(study: Study, preset: str | None = None) -> tuple[Study, tuple[Plan, ...]]:
    """A new study of the same case with the unchanged model and the leading trials' plans, by the
    next more thorough preset unless `preset` names one; its `parent_id` is the old study. It is for
    this machine, where the old one was measured on another.

    BadInput when nothing can be recommended yet, only the unchanged model was measured, or the case
    is for a GPU that is not here.
    """
    why = absent(study.case.target)
    if why is not None:
        raise BadInput(f"study {study.id} cannot be measured again here: {why}")
    case = _case_here(study)
    advice = recommend(study)
    leading = advice.again or tuple(trial_id for trial_id, _ in advice.scores[:3])
    trials = [trial for trial in map(study.trial, leading) if trial and not trial.is_baseline]
    plans = [Plan(case, trial.plan.techniques, trial.plan.seed) for trial in trials]
    if advice.trial_id is None or not plans:
        raise BadInput(
            f"study {study.id} has no leading trials to measure again: `trimtab show {study.id}`"
            " says why"
        )
    baseline = Plan(case, (), study.seed)
    chosen = find_preset(preset or _more_thorough(study.preset)).name
    again = Study(new_id("s"), case, study.priorities, chosen, None, study.seed, study.id, now())
    return again, (baseline, *plans)


def _case_here(study: Study) -> Case:
    """The study's case for this machine, where `local` was another one; BadInput names what is not
    here.
    """
    case = study.case
    needed = [*(dataset.path for dataset in case.data), case.workload.trace]
    away = next((path for path in needed if path and not Path(path).is_file()), None)
    if away is not None:
        raise BadInput(
            f"study {study.id} cannot be measured again here: it needs {away}, which is not on this"
            " machine. Measure it where that lies, or plan it anew with `trimtab run` and a file"
            " that is here"
        )
    if not case.target.local:
        return case
    here = targets.detect_local()
    return case if here.title == case.target.title else replace(case, target=here)


def _more_thorough(preset: str) -> str:
    names = list(PRESETS)
    return names[min(names.index(preset) + 1, len(names) - 1)] if preset in names else names[0]
