"""What a trial measured here would measure on another target: how well it ran here is carried over.

transfer.py projects its times; quality, size and acceptance are facts of the artefact.

Two plans are compared by the ratio of their projections. Most of what a projection gets wrong is
common to both and cancels: the samples and the unchanged model's samples in turns with them are
both carried over, so that their ratio is the one measured here times that of the four rooflines.
ratio_error() says what may remain.
"""

from __future__ import annotations

from dataclasses import replace

from core.measurement import Measurement, unavailable
from core.metrics import metric
from core.plan import Plan
from core.predict.account import account
from core.predict.carried import applied_here, carried, on_sensor
from core.predict.effects import effects
from core.predict.estimate import cost, energy, predict
from core.predict.roofline import Span
from core.predict.transfer import TRANSFER, gains, transferred
from core.study import Trial
from core.target import Target

# By which factor the ratio of two projected plans may be wrong: little where both run the same
# kernels, more where one of them multiplies with packed weights, whose kernels reach another share
# of the limit on each device. Both are assumptions, not measured.
RATIO = {"same kernels": 1.1, "other kernels": 1.5}


def project(trial: Trial, target: Target) -> tuple[Measurement, ...]:
    """The trial's measurements as they would be on `target`, in the order of the trial.

    Quality, model size and acceptance are facts of the artefact and stay `measured`; times, peak
    memory, energy and cost become `projected` with bounds (a classifier's by the roofline alone:
    its calls, not its work, take the time). Without known limits of this machine the times are
    projected from the target's limits alone. On a microcontroller the artefact is another one (8
    bit), so its quality is unavailable.
    """
    plan = Plan(replace(trial.plan.case, target=target), trial.plan.techniques, trial.plan.seed)
    if target.kind == "mcu":
        return on_sensor(trial, plan)
    expected = {prediction.metric: prediction for prediction in predict(plan)}
    if plan.case.model.task == "image":
        return (*_merged(trial, {}, expected), *_memory(plan))
    spans, how = transferred(trial, plan)
    factors = gains(trial, plan)
    times = {
        name: _carried_over(trial, _projected(name, span, how), factors.get(name))
        for name, span in spans.items()
    }
    if "tokens_per_s" in spans:
        rate = times["tokens_per_s"]
        times["energy_j_per_token"] = _by_rate(energy(plan, spans, effects(plan).batch), rate)
        times["usd_per_mtok"] = _by_rate(cost(plan, spans), rate)
    return (*_merged(trial, times, expected), *_memory(plan))


def ratio_error(ours: Plan, theirs: Plan) -> float:
    """By which factor the ratio of two plans' projections may be wrong beyond the
    noise of what was measured; 1 where both do the same work. On two targets nothing cancels."""
    if ours.case.target != theirs.case.target:
        return TRANSFER["other"]
    our_effects, their_effects = effects(ours), effects(theirs)
    if our_effects == their_effects:
        return 1.0
    return RATIO["same kernels" if our_effects.stored == their_effects.stored else "other kernels"]


def _memory(plan: Plan) -> tuple[Measurement, ...]:
    """The memory account there, whole and by part; what libraries hold there is not known."""
    need = account(plan)
    how = "weights, KV cache and workspace by arithmetic over shapes"
    whole = _projected("memory_bytes", Span(need.total, need.total), how)
    parts = (
        replace(_projected("memory_bytes", Span(size, size), how), condition=part)
        for part, size in need.parts()
    )
    return (whole, *parts)


def _merged(
    trial: Trial, times: dict[str, Measurement], expected: dict[str, Measurement]
) -> tuple[Measurement, ...]:
    """Carried facts, projected times, and what the roofline alone expects for the rest."""
    measurements = []
    for row in trial.measurements:
        way = metric(row.metric).projected
        if way == "account":
            continue
        if way == "carried":
            measurements.append(carried(row))
        elif way == "stays":
            measurements.append(applied_here(row))
        elif row.metric in times:
            measurements.append(times.pop(row.metric))
        elif row.metric in expected:
            measurements.append(expected[row.metric])
        elif not row.condition:
            # Once for each metric, not for every condition that it was measured under.
            why = f"measured on {row.environment or 'another one'}; there is no way to project it"
            measurements.append(unavailable(row.metric, row.unit, why))
    present = {row.metric for row in measurements}
    rest = {**expected, **times}
    return (*measurements, *(row for name, row in rest.items() if name not in present))


def _carried_over(trial: Trial, projection: Measurement, gain: float | None) -> Measurement:
    """`projection` with the rounds measured here, and those of the unchanged model in turns with
    them, in the target's units: their ratio is the measured one times `gain`."""
    measurement = trial.metric(projection.metric)
    if measurement is None or not measurement.value or not projection.value or not gain:
        return projection
    scale = projection.value / measurement.value
    ours = tuple(sample * scale for sample in measurement.samples)
    theirs = tuple(sample * scale / gain for sample in measurement.reference)
    return replace(projection, samples=ours, reference=theirs)


def _by_rate(projection: Measurement, rate: Measurement) -> Measurement:
    """Energy or cost of a token with samples that follow those of the throughput."""
    if projection.value is None or not rate.value or min(*rate.samples, *rate.reference, 1.0) <= 0:
        return projection
    whole = projection.value * rate.value
    return replace(
        projection,
        samples=tuple(whole / sample for sample in rate.samples),
        reference=tuple(whole / sample for sample in rate.reference),
    )


def _projected(name: str, span: Span, method: str) -> Measurement:
    return Measurement(
        name,
        (),
        metric(name).unit,
        "projected",
        method,
        pooled=span.value,
        bounds=(span.low, span.high),
    )
