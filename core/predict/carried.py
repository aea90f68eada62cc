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
    expected = {prediction.metric: prediction for prediction in predict(plan)}
    measurements = []
    for row in trial.measurements:
        if row.condition:
            continue
        if row.metric in expected:
            measurements.append(expected.pop(row.metric))
        elif metric(row.metric).projected == "stays":
            measurements.append(applied_here(row))
        elif row.metric == "concurrency":
            measurements.append(carried(row))
        else:
            measurements.append(_of_copy(row, plan))
    return (*measurements, *expected.values())


def place_quality(measurements: Sequence[Measurement], plan: Plan) -> tuple[Measurement, ...]:
    """Quality measured here, as it counts on the plan's target: a fact of the artefact, except on a
    microcontroller, which runs another artefact."""
    if plan.case.target.local:
        return tuple(measurements)
    if plan.case.target.kind == "mcu":
        return tuple(_of_copy(row, plan) for row in measurements)
    return tuple(carried(row) for row in measurements)


def _of_copy(row: Measurement, plan: Plan) -> Measurement:
    """What a number measured here says of the 8-bit copy on the sensor: an estimate where the plan
    itself computes in 8 bit, else nothing."""
    if row.origin == "unavailable":
        return row
    shown = "unknown" if row.value is None else f"{row.value:.4g}"
    if isinstance(effects(plan).stored, W8A8Bytes) and metric(row.metric).group == "quality":
        how = "measured here in 8 bit; the sensor's own rounding may differ"
        return replace(row, origin="estimated", method="; ".join(filter(None, (row.method, how))))
    why = f"the sensor runs an 8-bit copy: the {shown} measured here must be measured again on it"
    return unavailable(row.metric, row.unit, why)


def carried(measurement: Measurement) -> Measurement:
    """A fact of the artefact, which no device changes."""
    if measurement.origin == "unavailable":
        return measurement
    return _note(measurement, "a fact of the artefact, the same on any device")


def applied_here(measurement: Measurement) -> Measurement:
    """What happens once, where the techniques are applied."""
    return _note(measurement, "the techniques are applied on the machine that measured it")


def _note(row: Measurement, text: str) -> Measurement:
    where = f"measured on {row.environment}" if row.environment else "measured elsewhere"
    return replace(row, method="; ".join(filter(None, (row.method, f"{where}: {text}"))))
