"""The peak of one round, by tensor and by page.

By tensor: torch's allocator reports every block it takes and gives, to the byte; libraries' own
scratch memory is not in it. By page: the kernel's high-water mark, with everything in it, but only
to about 64 pages a core, because the kernel counts pages in batches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

from core.engine.allocator import freed_at_once
from core.measure.memory.process import (
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
)


@dataclass(frozen=True)
class Pages:
    """Resident bytes of the process: at rest before a round, and at the round's peak.

    `fresh` is False when the high-water mark could not be set back, `at_once` when the allocator
    may have held freed memory.
    """

    rest: int
    peak: int
    fresh: bool
    at_once: bool


def tensor_peak(run: Callable[[], object], device: str = "cpu") -> int | None:
    """Bytes of tensors that `run` held at most, beyond those that were there before it; None where
    this torch was built without a profiler.
    """
    gc.collect()
    return _cuda_peak(run)[0] if device == "cuda" else _cpu_peak(run)


def page_peak(run: Callable[[], object]) -> Pages | None:
    """Resident memory before and at the peak of `run`; None where the kernel does not tell.

    `run` must have run before: a first call also compiles kernels, which stay.
    """
    with freed_at_once() as at_once:
        fresh = reset_peak()
        rest = resident_bytes()
        run()
        peak = peak_resident_bytes()
    if rest is None or peak is None:
        return None
    return Pages(rest, max(peak, rest), fresh, at_once)


def device_peak(run: Callable[[], object]) -> tuple[int, int]:
    """(bytes that tensors held at most, bytes that torch reserved) on the GPU during `run`."""
    _, allocated, reserved = _cuda_peak(run)
    return allocated, reserved


def _cpu_peak(run: Callable[[], object]) -> int | None:
    from torch.autograd.profiler import profile
    from torch.profiler import kineto_available

    if not kineto_available():
        return None
    with profile(use_cpu=True, profile_memory=True) as seen:
        run()
    assert seen.kineto_results is not None
    events = [event for event in seen.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _cuda_peak(run: Callable[[], object]) -> tuple[int, int, int]:
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    allocated = torch.cuda.max_memory_allocated()
    return allocated - before, allocated, torch.cuda.max_memory_reserved()
