"""Bandwidth: reading, copying and adding arrays of a size that a cache holds or memory must.

On the CPU by kernels/stream, by torch where no compiler is; on a GPU by torch. The sizes reach
from a core's own cache to far beyond the last-level cache: a small model's weights stay in a cache,
and its limit is that cache's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from core.machine.calibration.record import Rate, summary
from kernels import stream

MIB = 1 << 20
# A sample moves about so much: long against the clock and what a parallel region costs, short
# against the scheduler's turns, whatever the array's size.
SAMPLE_BYTES = 128 * MIB
# A GPU moves that in 30 microseconds, no longer than it takes to start and to wait for it.
CUDA_SAMPLE_BYTES = 16 * 1024 * MIB
MIN_SAMPLES = 5
CPU_SIZES = (MIB // 4, MIB, 4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 128 * MIB)
CUDA_SIZES = (4 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB)
SAMPLE_OF = {"cpu": SAMPLE_BYTES, "cuda": CUDA_SAMPLE_BYTES}
# A dot product of an array's halves reads it once, as a sum does: the faster of both is the limit.
MOVED = {"read": 1, "dot": 1, "copy": 2, "triad": 3}
NAMES = {"dot": "read"}
ONE_THREAD = ("read", "copy", "triad")

Run = Callable[[str, int, int, int], int]


@dataclass(frozen=True)
class Job:
    """One rate to measure, with our own loop or with torch's."""

    kind: str
    size: int
    threads: int
    by_torch: bool = False


def jobs(device: str, threads: int, last_cache: int, available: int) -> list[Job]:
    """What is measured: reading over all sizes, on a GPU the largest in two ways, copy and triad at
    a small and at the largest; on the CPU the ends again with one thread, and the large copy again
    with torch's.

    The largest is at least four times the last-level cache; all arrays of it take a quarter of the
    `available` bytes at most.
    """
    if device == "cuda":
        sizes = [size for size in CUDA_SIZES if 12 * size < available]
        queue = [Job("read", size, 0, True) for size in sizes]
        queue += [Job("dot", size, 0, True) for size in sizes[-2:]]
        return [*queue, *(Job(kind, sizes[-1], 0, True) for kind in ("copy", "triad"))]
    wanted = max(256 * MIB, 4 * last_cache)
    largest = max(CPU_SIZES[0], min(wanted, available // 24) // 8 * 8)
    sizes = [*(size for size in CPU_SIZES if size < largest), largest]
    small = min(MIB, largest)
    queue = [Job("read", size, threads) for size in sizes]
    queue += [Job(kind, size, threads) for kind in ("copy", "triad") for size in (small, largest)]
    queue += [Job(kind, size, 1) for kind in ONE_THREAD for size in (small, largest)]
    return list(dict.fromkeys([*queue, Job("copy", largest, threads, True)]))


def bandwidths(torch: Any, device: str, wanted: list[Job], seconds: float) -> Iterator[Rate]:
    """A Rate of each job as soon as it is there, about `seconds` for all."""
    largest = max(job.size for job in wanted)
    with_torch = _with_torch(torch, device, largest)
    ours = None
    if device == "cpu":
        ours = stream.Arrays(largest).run if stream.available() is None else None
    for job in wanted:
        own = ours is not None and not job.by_torch
        how = "C++ loop, each thread on its own part" if own else "torch"
        if job.kind == "dot":
            how = "torch, a dot product of its halves"
        run = ours if ours is not None and own else with_torch
        samples = _samples(run, job, seconds / len(wanted), SAMPLE_OF[device])
        name = NAMES.get(job.kind, job.kind)
        yield summary(name, "B/s", samples, size=job.size, threads=job.threads, how=how)


def _samples(run: Run, job: Job, seconds: float, sample_bytes: int) -> list[float]:
    """Bytes/s of each sample, for about `seconds`; up to twice as long for MIN_SAMPLES."""
    rounds = max(1, sample_bytes // (job.size * MOVED[job.kind]))
    begun = time.perf_counter()
    run(job.kind, job.size, rounds, job.threads)
    rates: list[float] = []
    while True:
        start = time.perf_counter()
        moved = run(job.kind, job.size, rounds, job.threads)
        end = time.perf_counter()
        rates.append(moved / (end - start))
        if end - begun > (seconds if len(rates) >= MIN_SAMPLES else 2 * seconds):
            return rates


def _with_torch(torch: Any, device: str, largest: int) -> Run:
    count = largest // 4
    a, b, c = (torch.ones(count, dtype=torch.float32, device=device) for _ in range(3))
    usual = torch.get_num_threads()

    def run(kind: str, size: int, rounds: int, threads: int) -> int:
        n = size // 4
        if device == "cpu":
            torch.set_num_threads(threads or usual)
        try:
            for _ in range(rounds):
                if kind == "read":
                    a[:n].sum()
                elif kind == "dot":
                    torch.dot(a[: n // 2], a[n // 2 : n])
                elif kind == "copy":
                    c[:n].copy_(a[:n])
                else:
                    torch.add(a[:n], b[:n], alpha=3.0, out=c[:n])
            if device == "cuda":
                torch.cuda.synchronize()
        finally:
            if device == "cpu":
                torch.set_num_threads(usual)
        return n * 4 * rounds * MOVED[kind]

    return run
