"""A second, more thorough look at the trials that lead a study whose choice is not proven."""

from __future__ import annotations

from core.errors import BadInput
from core.ids import new_id, now
from core.measure.presets import PRESETS
from core.measure.presets import preset as find_preset
from core.plan import Plan
from core.study import Study
from core.verdict.recommend import recommend


def plan_again(study: Study, preset: str | None = None) -> tuple[Study, tuple[Plan, ...]]:
    """A new study of the same case with the unchanged model and the leading trials' plans, by the
    next more thorough preset unless `preset` names one; its `parent_id` is the old study.

    BadInput when nothing can be recommended yet, or only the unchanged model was measured.
    """
    advice = recommend(study)
    leading = advice.again or tuple(trial_id for trial_id, _ in advice.scores[:3])
    trials = [trial for trial in map(study.trial, leading) if trial and not trial.is_baseline]
    plans = [trial.plan for trial in trials]
    if advice.trial_id is None or not plans:
        raise BadInput(
            f"study {study.id} has no leading trials to measure again: `trimtab show {study.id}`"
            " says why"
        )
    baseline = Plan(study.case, (), study.seed)
    chosen = find_preset(preset or _more_thorough(study.preset)).name
    again = Study(
        new_id("s"), study.case, study.priorities, chosen, None, study.seed, study.id, now()
    )
    return again, (baseline, *plans)


def _more_thorough(preset: str) -> str:
    names = list(PRESETS)
    return names[min(names.index(preset) + 1, len(names) - 1)] if preset in names else names[0]
