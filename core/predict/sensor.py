"""Projects image classifiers onto microcontrollers: latency from cycles per multiply-accumulate.

latency = (MACs x cycles per MAC + weights x cycles per weight) / clock, with the cycles that tuned
8-bit programs take on that core (classes.toml): a convolution fetches a weight once for many
products, a dense layer for each. Flash holds one byte a weight and an assumed program, RAM the
largest pair of 8-bit activations. There is no basis for energy, so none is given.
"""

from __future__ import annotations

from core.catalogue import targets
from core.catalogue.classes import classes
from core.measurement import Measurement, unavailable
from core.metrics import listed, metric
from core.model import ClassifierShape
from core.plan import Plan
from core.predict.capacity import SENSOR_PROGRAM_BYTES, sensor_ram
from core.predict.roofline import Span

NAMES = listed("sensor")


def predict_sensor(plan: Plan) -> tuple[Measurement, ...]:
    """Projected latency, rate, flash and RAM of a classifier; unavailable for decoders."""
    shape = plan.case.model.shape
    target = plan.case.target
    if not isinstance(shape, ClassifierShape):
        why = f"{target.title} is a microcontroller: only image classifiers are planned for it"
        return tuple(unavailable(name, metric(name).unit, why) for name in NAMES)
    energy = unavailable(
        "energy_j_per_token", "J", "nobody states joules per instruction for this board"
    )
    size = float(shape.parameters)
    ram = sensor_ram(shape)
    return (
        *_times(plan, shape),
        _projected(
            "model_bytes",
            Span(size, size),
            f"flash: one byte a weight; the program around it is not counted (about "
            f"{SENSOR_PROGRAM_BYTES // 1024} KiB)",
        ),
        _projected(
            "peak_bytes",
            Span(ram, 2 * ram + 4096),
            "RAM: 8-bit activations of the widest layer, up to twice that and 4 KiB of stack",
        ),
        energy,
    )


def _times(plan: Plan, shape: ClassifierShape) -> tuple[Measurement, Measurement]:
    entry = targets.entry(plan.case.target.id)
    clock = None if entry is None else entry.fact("clock_hz")
    core = None if entry is None else classes().core(entry.device_class)
    if clock is None or core is None:
        why = f"the clock or the cycles per MAC of {plan.case.target.id} are not known"
        return (
            unavailable("latency_p95_s", "s", why),
            unavailable("examples_per_s", "1/s", why),
        )
    cycles = shape.macs * core.cycles_per_mac + shape.parameters * core.cycles_per_weight
    middle = cycles / clock.value
    low, high = middle / core.spread, middle * core.spread
    requests = max(1, plan.case.workload.concurrency)
    how = (
        f"({shape.macs:,} MACs x {core.cycles_per_mac:g} cycles + {shape.parameters:,} weights x "
        f"{core.cycles_per_weight:g}) / {clock.value / 1e6:g} MHz, a factor of {core.spread:g} "
        f"either way; {core.title}: {core.note}"
    )
    return (
        _projected("latency_p95_s", Span(low * requests, high * requests), how),
        _projected("examples_per_s", Span(1 / high, 1 / low), how),
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
