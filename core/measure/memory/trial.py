"""The memory of one trial as measurements that add up: weights by format, KV cache, workspace, and
what libraries hold beside them, to the peak of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from core import condition
from core import format as shown
from core.measure.memory.peak import DeviceRound, Pages, device_round, page_peak, tensor_peak
from core.measure.memory.weights import StoredTensor, by_format, stored
from core.measurement import Measurement, unavailable
from core.plan import Plan
from core.predict.account import MemoryAccount, account
from core.workload import Workload

if TYPE_CHECKING:
    from core.engine.protocol import TextEngine
    from core.techniques.deployment import Deployment

COUNTED = (
    "most that tensors held in one round beside weights and cache, counted by torch's allocator,"
    " rotary tables included"
)
NOT_COUNTED = "by arithmetic: this torch was built without the profiler that counts tensors"


def measure_memory(
    deployment: Deployment,
    plan: Plan,
    workload: Workload,
    run: Callable[[], object],
    before_load: int | None,
) -> list[Measurement]:
    """peak_bytes, memory_bytes with its parts under conditions, kv_bytes, device_peak_bytes on a
    GPU; and a note that compares them with the prediction.

    `run` serves one round of `workload`; it runs three times, untimed, on a GPU twice, where all is
    read off one round. `before_load` is the resident size before the model was loaded. Call it
    before another model is loaded: pages cannot be told apart.
    """
    run()
    pages: Pages | None
    peak: DeviceRound | int | None
    if deployment.device == "cuda":
        peak = device_round(run)
        pages = peak.pages
    else:
        pages, peak = page_peak(run), tensor_peak(run)
    predicted = account(plan)
    held, tensors = _held(deployment, predicted, workload, peak)
    counted = peak is not None
    measurements = _parts(held, predicted, tensors, counted)
    measurements += _peak(pages, before_load, held.total, deployment.device)
    if held.kv:
        measurements.append(_kv(held, predicted))
    if isinstance(peak, DeviceRound):
        measurements.append(_device(peak))
    deployment.note(compared(held, predicted))
    return measurements


def compared(held: MemoryAccount, predicted: MemoryAccount) -> str:
    """One line: what was predicted, what was held, and the difference by part."""
    share = held.total / predicted.total - 1
    parts = dict(predicted.parts())
    apart = [
        f"{name} {size - parts.get(name, 0.0):+,.0f} B"
        for name, size in held.parts()
        if size != parts.get(name, 0.0)
    ]
    named = ", ".join(apart) or "in no part"
    return (
        f"memory: {predicted.total:,.0f} B predicted, {held.total:,.0f} B held at the peak of a"
        f" round ({share:+.1%}); measured less predicted: {named}"
    )


def _held(
    deployment: Deployment,
    predicted: MemoryAccount,
    workload: Workload,
    peak: DeviceRound | int | None,
) -> tuple[MemoryAccount, tuple[StoredTensor, ...]]:
    """The account from the real storages, a real cache and the allocator's `peak`; without that the
    workspace is the predicted one.
    """
    engines = [deployment.engine, *deployment.serving.beside]
    formats: dict[str, float] = {}
    tensors: list[StoredTensor] = []
    for engine in engines:
        mine = stored(engine)
        if engine is not deployment.engine:
            mine = tuple(replace(tensor, format=f"draft {tensor.format}") for tensor in mine)
        tensors += mine
        formats |= {name: float(size) for name, size in by_format(mine).items()}
    together = min(deployment.serving.batch, workload.concurrency)
    text = deployment.case.model.task == "text"
    kv = _cache_bytes(engines, together, workload) if text else 0.0
    kv = predicted.kv if kv is None else kv
    space = predicted.workspace
    if isinstance(peak, DeviceRound):
        # A server may keep its cache and its steps' buffers from round to round: they were there
        # before the round as well.
        space = max(peak.held - sum(formats.values()) - kv, 0.0)
    elif peak is not None:
        space = max(peak - kv, 0.0) + sum(engine.table_bytes() for engine in engines)
    per_token = kv / _tokens(together, workload) if kv else 0.0
    held = MemoryAccount(tuple(formats.items()), kv, per_token, space)
    return held, tuple(tensors)


def _cache_bytes(engines: list[TextEngine], batch: int, workload: Workload) -> float | None:
    """Bytes of a real, empty cache of every engine; None when one grows only as it is filled."""
    capacity = workload.prompt_tokens + workload.output_tokens
    total = 0.0
    for engine in engines:
        size = float(engine.new_cache(batch, capacity).nbytes)
        if not size:
            return None
        total += size
    return total


def _tokens(batch: int, workload: Workload) -> int:
    return batch * (workload.prompt_tokens + workload.output_tokens)


def _parts(
    held: MemoryAccount, predicted: MemoryAccount, tensors: tuple[StoredTensor, ...], counted: bool
) -> list[Measurement]:
    how = {
        condition.part("kv"): "bytes of the real cache",
        condition.part("workspace"): COUNTED if counted else NOT_COUNTED,
    }
    summary = " + ".join(f"{shown.number(size, 'B')} {name}" for name, size in held.parts())
    whole = _measured(
        "memory_bytes",
        held.total,
        f"{summary}; predicted by arithmetic: {shown.number(predicted.total, 'B')}",
    )
    rows = [whole if counted else replace(whole, origin="estimated")]
    for part, size in held.parts():
        method = how.get(part) or _largest(part.format, tensors)
        row = replace(_measured("memory_bytes", size, method), condition=part)
        if part.value == "workspace" and not counted:
            row = replace(row, origin="estimated")
        rows.append(row)
    return rows


def _largest(format_: str, tensors: tuple[StoredTensor, ...]) -> str:
    mine = sorted(
        (tensor for tensor in tensors if tensor.format == format_ and tensor.nbytes),
        key=lambda tensor: -tensor.nbytes,
    )
    first = ", ".join(f"{tensor.name} {tensor.nbytes:,} B" for tensor in mine[:3])
    return f"{len(mine)} tensors from their own storages; the largest: {first}"


def _peak(
    pages: Pages | None, before_load: int | None, held: float, device: str
) -> list[Measurement]:
    if pages is None or before_load is None:
        why = "this system does not tell a process's resident memory"
        return [unavailable("peak_bytes", "B", why)]
    peak = float(max(pages.peak - before_load, 0))
    how = "peak resident set of one round, less the process before loading (libraries imported)"
    if pages.at_once:
        how += "; freed memory given back at once"
    else:
        how += "; memory that the allocator keeps for reuse is included"
    if not pages.fresh:
        how += "; the high-water mark could not be reset, so loading and preparing are included"
    if device == "cuda":
        how += "; of the host alone, the weights lie on the GPU"
    if device == "cpu" and peak < held:
        how += "; less than its tensors: some lie where the process held free memory before"
    measurements = [_measured("peak_bytes", peak, how)]
    if device == "cpu" and peak >= held:
        beside = replace(
            _measured(
                "memory_bytes",
                peak - held,
                "peak_bytes less all tensors: code and compiled kernels of libraries for these"
                " shapes, their scratch memory, Python's objects, rounding to pages",
            ),
            condition=condition.part("libraries"),
        )
        measurements.insert(0, beside)
    return measurements


def _kv(held: MemoryAccount, predicted: MemoryAccount) -> Measurement:
    how = f"{held.kv_per_token:,.0f} B for each token of a sequence"
    if held.kv_per_token != predicted.kv_per_token:
        how += f"; {predicted.kv_per_token:,.0f} B by arithmetic"
    return _measured("kv_bytes", held.kv, how)


def _device(peak: DeviceRound) -> Measurement:
    how = "most that tensors held in one round, counted by torch's allocator, weights included"
    if peak.captured:
        how += f", and {peak.captured:,} B that captured steps keep"
    how += (
        f"; {peak.reserved:,} B reserved from the driver, {peak.used:,} B of the device taken in"
        " all, CUDA's own context included"
    )
    return _measured("device_peak_bytes", float(peak.held), how)


def _measured(name: str, value: float, method: str) -> Measurement:
    return Measurement(name, (value,), "B", "measured", method)
