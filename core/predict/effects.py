"""The effects of a plan: what its techniques, one after another, make of the model."""

from __future__ import annotations

from core.files.storage import as_stored
from core.plan import Plan
from core.techniques.effects import Effects


def effects(plan: Plan) -> Effects:
    """The effects of all of the plan's techniques, applied in order."""
    effect = Effects(plan.case.model.precision, stored=as_stored(plan.case.model))
    for technique in plan.techniques:
        effect = technique.effect(effect, plan.case)
    return effect
