"""Where slower kernels ran in the place of ours, because ours could not be built or found.

A fallback is correct, so nothing fails: only these sentences tell that its times are not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from core.caution import Caution
from core.study import KernelCalls
from kernels.dtypes import FLOATS
from kernels.registry import KERNELS, KernelInfo, kernels_available, named

if TYPE_CHECKING:
    from core.engine.protocol import Engine

# What values the kernels of ours over codes take; those of other operations name them themselves.
TAKES = {"linear_lowbit": {"bf16", "fp32", "fp16"}, "linear_fp8": {"bf16"}}
MOST_TAKE = {"bf16", "fp32"}


def lost(device: str) -> dict[str, list[str]]:
    """Why kernels of ours do not run on `device` ("cpu", "cuda"), each reason with the operations
    that it slows down. Builds what is not built yet.
    """
    ours = [info for info in KERNELS if info.needs and device in info.devices]
    return _by_reason(ours, device)


def notes(device: str, formats: set[str], ran: Iterable[KernelCalls]) -> list[Caution]:
    """The cautions of a trial that `ran` these kernels on values of these `formats`: one a reason,
    naming the operations that ran a fallback.
    """
    used = {(kernel.op, kernel.name) for kernel in ran}
    ours = [info for info in KERNELS if device in info.devices and _replaced(info, used)]
    reasons = _by_reason([info for info in ours if _takes(info, formats)], device)
    unfit = sorted({info.op for info in ours if _codes(info) and not _takes(info, formats)})
    if unfit and formats:
        reasons[f"none of ours takes {' or '.join(sorted(formats))} there"] = unfit
    return [
        Caution(
            "fallback",
            f"{', '.join(ops)} ran without our kernels: {reason}; the times are those of the"
            " fallback",
        )
        for reason, ops in reasons.items()
    ]


def uncaptured(engines: Iterable[Engine]) -> list[Caution]:
    """The cautions of engines whose steps ran on a GPU without being captured: one a reason."""
    graphs = [engine.lean.graphs for engine in engines if engine.lean is not None]
    reasons = [reason for held in graphs if held is not None for reason in held.reasons]
    return [
        Caution(
            "uncaptured",
            f"{reason}: each kernel of a step was launched from Python, and the times include that",
        )
        for reason in dict.fromkeys(reasons)
    ]


def _by_reason(ours: Sequence[KernelInfo], device: str) -> dict[str, list[str]]:
    # Asking builds kernels, which takes a while where nobody has: not for nothing.
    reasons = dict(kernels_available(device)) if ours else {}
    ops_by_reason: dict[str, list[str]] = {}
    for info in ours:
        reason = reasons[info]
        if reason is not None and info.op not in ops_by_reason.setdefault(reason, []):
            ops_by_reason[reason].append(info.op)
    return ops_by_reason


def _replaced(ours: KernelInfo, used: set[tuple[str, str]]) -> bool:
    """Whether another kernel than `ours` did what `ours` is there for, and nobody asked for it."""
    names = {name for op, name in used if op == ours.op}
    if not ours.needs or ours.name in names or named(ours.op):
        return False
    same = [info for info in KERNELS if info.op == ours.op and info.name in names]
    return any(not info.needs and set(info.formats) & set(ours.formats) for info in same)


def _codes(info: KernelInfo) -> bool:
    """Whether it multiplies codes: its formats then say nothing of the values beside them."""
    return not set(info.formats) & set(FLOATS)


def _takes(ours: KernelInfo, formats: set[str]) -> bool:
    if "cpu" not in ours.devices:
        # Those for a GPU, one operation's together, take all of them.
        return bool(set(FLOATS) & formats)
    if not _codes(ours):
        return bool(set(ours.formats) & formats)
    return bool(TAKES.get(ours.op, MOST_TAKE) & formats)
