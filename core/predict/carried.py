"""What a number measured here says of another target without a cost model: facts of the artefact,
and what a microcontroller's 8-bit copy makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.measurement import Measurement, unavailable
from core.metrics import metric
from core.plan import Plan
from core.predict.effects import effects
from core.predict.estimate import predict
from core.study import Trial
from kernels.w8a8_bytes import W8A8Bytes


def on_sensor(trial: Trial, plan: Plan) -> tuple[Measurement, ...]:
    """The trial's measurements as they count on a microcontroller, and what is predicted there."""
    expected = {one.metric: one for one in predict(plan)}
    found = []
    for one in trial.measurements:
        if one.condition:
            continue
        if one.metric in expected:
            found.append(expected.pop(one.metric))
        elif metric(one.metric).projected == "stays":
            found.append(applied_here(one))
        elif one.metric == "concurrency":
            found.append(carried(one))
        else:
            found.append(_of_copy(one, plan))
    return (*found, *expected.values())


def place_quality(found: Sequence[Measurement], plan: Plan) -> tuple[Measurement, ...]:
    """Quality measured here, as it counts on the plan's target: a fact of the artefact, except on a
    microcontroller, which runs another artefact."""
    if plan.case.target.local:
        return tuple(found)
    if plan.case.target.kind == "mcu":
        return tuple(_of_copy(one, plan) for one in found)
    return tuple(carried(one) for one in found)


def _of_copy(one: Measurement, plan: Plan) -> Measurement:
    """What a number measured here says of the 8-bit copy on the sensor: an estimate where the plan
    itself computes in 8 bit, else nothing."""
    if one.origin == "unavailable":
        return one
    shown = "unknown" if one.value is None else f"{one.value:.4g}"
    if isinstance(effects(plan).stored, W8A8Bytes) and metric(one.metric).group == "quality":
        how = "measured here in 8 bit; the sensor's own rounding may differ"
        return replace(one, origin="estimated", method="; ".join(filter(None, (one.method, how))))
    why = f"the sensor runs an 8-bit copy: the {shown} measured here must be measured again on it"
    return unavailable(one.metric, one.unit, why)


def carried(one: Measurement) -> Measurement:
    """A fact of the artefact, which no device changes."""
    if one.origin == "unavailable":
        return one
    return _note(one, "a fact of the artefact, the same on any device")


def applied_here(one: Measurement) -> Measurement:
    """What happens once, where the techniques are applied."""
    return _note(one, "the techniques are applied on the machine that measured it")


def _note(one: Measurement, text: str) -> Measurement:
    where = f"measured on {one.environment}" if one.environment else "measured on this machine"
    return replace(one, method="; ".join(filter(None, (one.method, f"{where}: {text}"))))
