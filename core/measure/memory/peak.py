"""The peak of one round, by tensor and by page.

By tensor: torch's allocator reports every block it takes and gives, to the byte; libraries' own
scratch memory is not in it. By page: the kernel's high-water mark, with everything in it, but only
to about 64 pages a core, because the kernel counts pages in batches. On a GPU torch's allocator
counts both tensors and what steps that were captured as graphs keep.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class DeviceRound:
    """One round on a GPU, bytes: `tensors` are the most that tensors held, weights included;
    `captured` what captured steps keep for themselves beside them; `reserved` what torch had from
    the driver at most; `used` what the driver says is taken on the device after it, by everybody.
    `pages` are those of the process on the host.
    """

    tensors: int
    captured: int
    reserved: int
    used: int
    pages: Pages | None

    @property
    def held(self) -> int:
        """What the round needs on the device, beside the driver's own."""
        return self.tensors + self.captured


def tensor_peak(run: Callable[[], object]) -> int | None:
    """Bytes of tensors on the CPU that `run` held at most, beyond those that were there before it;
    None where this torch was built without a profiler.
    """
    gc.collect()
    return _cpu_peak(run)


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


def device_round(run: Callable[[], object]) -> DeviceRound:
    """What one `run` holds on torch's current GPU and on the host; it must have run before."""
    import torch

    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    fresh = reset_peak()
    rest = resident_bytes()
    run()
    torch.cuda.synchronize()
    peak = peak_resident_bytes()
    free, total = torch.cuda.mem_get_info()
    return DeviceRound(
        tensors=torch.cuda.max_memory_allocated(),
        captured=captured_bytes(torch.cuda.memory_snapshot()),
        reserved=torch.cuda.max_memory_reserved(),
        used=total - free,
        pages=None if rest is None or peak is None else Pages(rest, max(peak, rest), fresh, False),
    )


def captured_bytes(segments: Iterable[Mapping[str, Any]]) -> int:
    """Of torch's allocator's segments, what lies in pools of captured steps without being a tensor
    now: temporaries that every replay writes again, which the peak of tensors does not count.
    """
    own = [seg for seg in segments if tuple(seg.get("segment_pool_id", (0, 0))) != (0, 0)]
    return sum(int(seg["total_size"]) - int(seg["allocated_size"]) for seg in own)


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
