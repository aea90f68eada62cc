"""Where slower kernels ran in the place of ours, because ours could not be built or found.

A fallback is correct, so nothing fails: only these sentences tell that its times are not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from core.environments import caution
from core.study import KernelCalls
from kernels.registry import KERNELS, KernelInfo, kernels_available, named

_FLOATS = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
# Operations over codes whose kernel for CPUs takes bf16 alone; the others' take fp32 as well.
BF16_ALONE = ("linear_lowbit", "linear_fp8")


def lost(device: str) -> dict[str, list[str]]:
    """Why kernels of ours do not run on `device` ("cpu", "cuda"), each reason with the operations
    that it slows down. Builds what is not built yet.
    """
    ours = [info for info in KERNELS if info.needs and device in info.devices]
    return _by_reason(ours, device)


def floats(engine: Any) -> set[str]:
    """The formats ("bf16", ...) of what the kernels of `engine` multiply with; empty when it uses
    none.
    """
    from core.engine.modules import KernelLinear

    if hasattr(engine, "dtype"):
        return {_FLOATS[str(engine.dtype)]}
    module = getattr(engine, "model", engine)
    parts = module.modules() if hasattr(module, "modules") else ()
    return {
        _FLOATS[str(one.weight_of_kernel.dtype)] for one in parts if isinstance(one, KernelLinear)
    }


def notes(device: str, formats: set[str], ran: Iterable[KernelCalls]) -> list[str]:
    """The cautions of a trial that `ran` these kernels on values of these `formats`: one a reason,
    naming the operations that ran a fallback.
    """
    used = {(one.op, one.name) for one in ran}
    ours = [info for info in KERNELS if device in info.devices and _replaced(info, formats, used)]
    return [
        caution(
            "fallback",
            f"{', '.join(ops)} ran without our kernels: {reason}; the times are those of the"
            " fallback",
        )
        for reason, ops in _by_reason(ours, device).items()
    ]


def _by_reason(ours: Sequence[KernelInfo], device: str) -> dict[str, list[str]]:
    # Asking builds kernels, which takes a while where nobody has: not for nothing.
    reasons = dict(kernels_available(device)) if ours else {}
    found: dict[str, list[str]] = {}
    for info in ours:
        reason = reasons[info]
        if reason is not None and info.op not in found.setdefault(reason, []):
            found[reason].append(info.op)
    return found


def _replaced(ours: KernelInfo, formats: set[str], used: set[tuple[str, str]]) -> bool:
    """Whether another kernel than `ours` did what `ours` is there for, and nobody asked for it."""
    names = {name for op, name in used if op == ours.op}
    if not ours.needs or ours.name in names or named(ours.op) or not _takes(ours, formats):
        return False
    same = [one for one in KERNELS if one.op == ours.op and one.name in names]
    return any(not one.needs and set(one.formats) & set(ours.formats) for one in same)


def _takes(ours: KernelInfo, formats: set[str]) -> bool:
    if set(ours.formats) & set(_FLOATS.values()):
        return bool(set(ours.formats) & formats)
    return "bf16" in formats or ("fp32" in formats and ours.op not in BF16_ALONE)
