"""Whether a plan fits its target, and the sentence with the arithmetic when it does not."""

from __future__ import annotations

from core import format as shown
from core.model import ClassifierShape
from core.plan import Plan
from core.predict.account import account
from core.predict.effects import effects

# A sensor runs 8-bit weights with 32-bit biases and the program around them.
SENSOR_PROGRAM_BYTES = 32 * 1024


def fit(plan: Plan) -> str | None:
    """Why the plan's model cannot be held by its target, or None when it can.

    Names the sum: weights, KV cache, activations against memory; on a microcontroller 8-bit weights
    against flash and 8-bit activations against RAM. Also a context that is too short.
    """
    target = plan.case.target
    if plan.case.model.task == "image":
        return _image(plan)
    if target.kind == "mcu":
        return _decoder_on_sensor(plan)
    too_long = _too_long(plan)
    if too_long is not None:
        return too_long
    need = account(plan)
    total, loading = need.total, _while_loading(plan)
    if max(total, loading) <= target.memory_bytes:
        return None
    workload = plan.case.workload
    tokens = workload.prompt_tokens + workload.output_tokens
    batch = effects(plan).batch
    sequences = "1 sequence" if batch == 1 else f"{batch} sequences"
    if loading > total:
        return (
            f"{_bytes(loading)} of weights in {plan.case.model.bits} bits, which are loaded before "
            f"they are changed, exceed the {_bytes(target.memory_bytes)} of {target.name}"
        )
    return (
        f"{_bytes(need.weights)} of weights + {_bytes(need.kv)} of KV cache for {sequences} of "
        f"{tokens} tokens + {_bytes(need.workspace)} of activations = {_bytes(total)} exceed the "
        f"{_bytes(target.memory_bytes)} of {target.name}"
    )


def _too_long(plan: Plan) -> str | None:
    workload = plan.case.workload
    tokens = workload.prompt_tokens + workload.output_tokens
    context = plan.case.model.decoder().context
    if tokens <= context:
        return None
    return (
        f"{workload.prompt_tokens} prompt + {workload.output_tokens} output tokens = {tokens} "
        f"exceed the context of {context} tokens that {plan.case.model.id} has"
    )


def _while_loading(plan: Plan) -> float:
    """Bytes of the unchanged weights, which are loaded here before a technique changes them."""
    return plan.case.model.weight_bytes() if plan.case.target.local else 0.0


def _image(plan: Plan) -> str | None:
    target, shape = plan.case.target, plan.case.model.shape
    assert isinstance(shape, ClassifierShape)
    if target.kind != "mcu":
        need = account(plan)
        if need.total <= target.memory_bytes:
            return None
        return (
            f"{_bytes(need.weights)} of weights + {_bytes(need.workspace)} of activations = "
            f"{_bytes(need.total)} exceed the {_bytes(target.memory_bytes)} of {target.name}"
        )
    flash, ram = sensor_flash(shape), sensor_ram(shape)
    if target.flash_bytes is not None and flash > target.flash_bytes:
        return (
            f"{_bytes(shape.parameters)} of 8-bit weights + {_bytes(SENSOR_PROGRAM_BYTES)} of "
            f"program = {_bytes(flash)} exceed the {_bytes(target.flash_bytes)} of flash of "
            f"{target.name}"
        )
    if ram > target.memory_bytes:
        return (
            f"{_bytes(ram)} of 8-bit activations exceed the {_bytes(target.memory_bytes)} of RAM "
            f"of {target.name}"
        )
    return None


def sensor_flash(shape: ClassifierShape) -> float:
    """Bytes of flash: one byte a weight (biases counted as weights) and an assumed program."""
    return float(shape.parameters + SENSOR_PROGRAM_BYTES)


def sensor_ram(shape: ClassifierShape) -> float:
    """Bytes of RAM: the largest sum of a layer's 8-bit input and output, one byte each."""
    return float(shape.activations)


def _decoder_on_sensor(plan: Plan) -> str:
    target = plan.case.target
    weights = account(plan).weights
    if target.flash_bytes is not None and weights > target.flash_bytes:
        return (
            f"{_bytes(weights)} of weights exceed the {_bytes(target.flash_bytes)} of flash of "
            f"{target.name}"
        )
    return f"{target.name} is a microcontroller: only image classifiers are planned for it"


def _bytes(value: float) -> str:
    return shown.number(value, "B")
