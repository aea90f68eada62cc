"""Predicts a plan's numbers from a roofline: what published programs typically reach on the class
of the target (typical.py), else the best and worst of what programs reach (limits.py).

Origin `estimated` on this machine, `projected` on another. Quality is never predicted.
"""

from __future__ import annotations

import numpy as np

from core.machine.calibrate import Calibration
from core.measurement import Measurement, unavailable
from core.metrics import metric, projected
from core.model import ClassifierShape
from core.plan import Plan
from core.predict import sensor
from core.predict.account import account
from core.predict.effects import effects
from core.predict.limits import TargetLimits, limits
from core.predict.roofline import Span, UnknownPeak, decoder_times, seconds
from core.predict.typical import Typical, typical
from core.predict.work import Load, decoder_work
from core.techniques.effects import Effects

# Share of the stated power that a device draws while it serves.
POWER_SHARE = (0.3, 1.0)
# Allocators and runtimes hold more than the tensors: up to this factor, and this many bytes.
PEAK_OVER_TENSORS = 1.6
PEAK_EXTRA_BYTES = 100e6
# A technique without a stated effect may make things so much better or worse.
UNKNOWN_FACTOR = 4.0
# A classifier's layers and the calls around them, per batch.
IMAGE_OVERHEAD_S = (5e-6, 1e-3)
TIMES = projected("roofline")


def predict(plan: Plan, calibration: Calibration | None = None) -> tuple[Measurement, ...]:
    """What `plan` will probably measure on its target, each with stated bounds and its method.

    A `calibration` replaces the target's stated limits and what is typical of its class. Metrics
    that cannot be predicted are `unavailable` with the reason; quality metrics are left out.
    """
    if plan.case.target.kind == "mcu":
        return sensor.predict_sensor(plan)
    if plan.case.model.task == "image":
        return _image(plan, calibration)
    effect = effects(plan)
    work = decoder_work(plan)
    need = account(plan)
    reads = work.step(1, 1, 0).bytes
    usual = typical(plan.case.target, work, effect) if calibration is None else None
    if usual is None:
        edge = limits(plan.case.target, calibration, effect.packed, reads)
        spans, why = _decoder_spans(plan, edge, effect)
    else:
        spans, why = _typical_spans(plan, usual, effect)
    size = _measurement(
        plan,
        "model_bytes",
        Span(need.weights, need.weights),
        _doubt("arithmetic over shapes", effect),
    )
    high = need.total * PEAK_OVER_TENSORS + PEAK_EXTRA_BYTES
    peak = _measurement(
        plan,
        "peak_bytes",
        Span(need.total, high),
        _doubt(
            "weights + KV cache + activations, to 1.6 times that and 100 MB for the runtime", effect
        ),
    )
    missing = why if not spans else _no_peak(plan)
    times = tuple(
        _measurement(plan, name, spans[name], why) if name in spans else _no(name, missing)
        for name in TIMES
    )
    return (*times, size, peak, energy(plan, spans, effect.batch), cost(plan, spans))


def _decoder_spans(
    plan: Plan, edge: TargetLimits | None, effect: Effects
) -> tuple[dict[str, Span], str]:
    """Every time metric with its range, and the method; or nothing, and the reason."""
    if edge is None:
        return {}, f"the bandwidth of {plan.case.target.id} is not known"
    best = decoder_times(plan, edge.best, accepted=effect.draft_tokens + 1.0)
    worst = decoder_times(plan, edge.worst, accepted=1.0)
    if not best:
        return {}, _no_peak(plan)
    how = f"roofline over bytes and FLOPs: {edge.basis}"
    if effect.draft_tokens:
        how += f"; 1 to {effect.draft_tokens + 1} tokens accepted a step"
    widen = UNKNOWN_FACTOR if effect.unknown else 1.0
    spans = {}
    for name in best:
        low, high = sorted((best[name], worst[name]))
        spans[name] = Span(low / widen, high * widen)
    return spans, _doubt(how, effect)


def _typical_spans(plan: Plan, usual: Typical, effect: Effects) -> tuple[dict[str, Span], str]:
    """As _decoder_spans, around what is typical; never faster than the stated limits."""
    proposed = effect.draft_tokens + 1.0
    most = decoder_times(plan, usual.rates, proposed)
    if not most:
        return {}, _no_peak(plan)
    least = decoder_times(plan, usual.rates, 1.0) if effect.draft_tokens else most
    fastest = decoder_times(plan, usual.fastest, proposed)
    how = f"roofline over bytes and FLOPs: {usual.basis}"
    if effect.draft_tokens:
        how += f"; 1 to {effect.draft_tokens + 1} tokens accepted a step"
    widen = UNKNOWN_FACTOR if effect.unknown else 1.0
    spans = {}
    for name in most:
        middle = float(np.sqrt(most[name] * least[name]))
        low, high = sorted((most[name], least[name]))
        low, high = low / usual.spread, high * usual.spread
        if metric(name).better == "lower":
            low = min(max(low, fastest[name]), middle)
        else:
            high = max(min(high, fastest[name]), middle)
        spans[name] = Span(low / widen, high * widen, middle)
    return spans, _doubt(how, effect)


def _image(plan: Plan, calibration: Calibration | None) -> tuple[Measurement, ...]:
    """One batch of images: max(bytes / bandwidth, FLOPs / peak) and the calls around it."""
    shape = plan.case.model.shape
    assert isinstance(shape, ClassifierShape)
    effect = effects(plan)
    weights = plan.case.model.weight_bytes(32)
    edge = limits(plan.case.target, calibration, False, weights)
    size = _measurement(plan, "model_bytes", Span(weights, weights), "32-bit weights")
    if edge is None:
        why = f"the bandwidth of {plan.case.target.id} is not known"
        return (_no("latency_p95_s", why), _no("examples_per_s", why), size)
    batch = effect.batch
    load = Load(weights + 4.0 * batch * shape.activations, batch * 2.0 * shape.macs, batch)
    try:
        fast = seconds(load, 0, edge.best) + IMAGE_OVERHEAD_S[0]
        slow = seconds(load, 0, edge.worst) + IMAGE_OVERHEAD_S[1]
    except UnknownPeak:
        why = _no_peak(plan)
        return (_no("latency_p95_s", why), _no("examples_per_s", why), size)
    requests = max(1, plan.case.workload.concurrency)
    groups = -(-requests // batch)
    low, high = IMAGE_OVERHEAD_S
    how = _doubt(
        f"roofline over bytes and FLOPs: {edge.basis}; {low * 1e6:g} to {high * 1e6:g} µs of "
        "calls a batch",
        effect,
    )
    return (
        _measurement(plan, "latency_p95_s", Span(groups * fast, groups * slow), how),
        _measurement(plan, "examples_per_s", Span(batch / slow, batch / fast), how),
        size,
    )


def energy(plan: Plan, spans: dict[str, Span], batch: int) -> Measurement:
    """Stated power x share x seconds, divided by the new tokens; unavailable without either."""
    name, power = "energy_j_per_token", plan.case.target.power_w
    if power is None:
        return _no(name, f"the power of {plan.case.target.id} is not stated")
    if "tokens_per_s" not in spans:
        return _no(name, "without a throughput there is no energy per token")
    rate = spans["tokens_per_s"]
    low, high = POWER_SHARE
    how = f"{power:g} W stated, {low:g} to {high:g} of it drawn, divided by the predicted tokens/s"
    middle = power * float(np.sqrt(low * high)) / rate.value
    span = Span(power * low / rate.high, power * high / rate.low, middle)
    return _measurement(plan, name, span, how)


def cost(plan: Plan, spans: dict[str, Span]) -> Measurement:
    """Dollars per million new tokens: the stated rent divided by the throughput."""
    name, rent = "usd_per_mtok", plan.case.target.usd_per_hour
    if rent is None:
        return _no(name, f"the target {plan.case.target.id} has no stated price per hour")
    if "tokens_per_s" not in spans:
        return _no(name, "without a throughput there is no cost per token")
    rate = spans["tokens_per_s"]
    how = f"${rent:g} an hour divided by the predicted tokens/s"
    million = rent / 3600 * 1e6
    span = Span(million / rate.high, million / rate.low, million / rate.value)
    return _measurement(plan, name, span, how)


def _measurement(plan: Plan, name: str, span: Span, method: str) -> Measurement:
    origin = "estimated" if plan.case.target.local else "projected"
    return Measurement(
        name,
        (),
        metric(name).unit,
        origin,
        method,
        pooled=span.value,
        bounds=(span.low, span.high),
    )


def _doubt(method: str, effect: Effects) -> str:
    """The method, with the techniques whose effect nobody stated."""
    if not effect.unknown:
        return method
    names = ", ".join(effect.unknown)
    return f"{method}; the effect of {names} is not known, so none is claimed"


def _no_peak(plan: Plan) -> str:
    return f"compute may be the limit, and the peak of {plan.case.target.id} is not known"


def _no(name: str, why: str) -> Measurement:
    return unavailable(name, metric(name).unit, why)
