"""Measures this machine's limits with torch in this process: bandwidth, matrix peaks, overheads.

`trimtab doctor --calibrate` runs it; the Hardware page has it run in a child (python -m
core.machine.calibration). It takes the whole machine: nothing else should run meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from core.ids import now
from core.machine import conditions
from core.machine.calibration import bandwidth, compute, overhead
from core.machine.calibration.record import Calibration, Rate
from core.machine.environment import available_bytes, environment

# How the time is shared.
BANDWIDTH, COMPUTE, OVERHEAD = 0.45, 0.45, 0.10
Report = Callable[[str, float], None]


def measure(
    seconds: float, device: str | None = None, report: Report = lambda stage, share: None
) -> Calibration:
    """Every rate in about `seconds`; `report(stage, share)` is called after each.

    Raises nothing for a format or a kernel that cannot run here: it is left out.
    """
    import torch

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    identifier, facts = environment()
    threads = torch.get_num_threads() if where == "cpu" else 0
    free = torch.cuda.mem_get_info()[0] if where == "cuda" else available_bytes()
    largest_cache = max(facts.get("caches", {}).values(), default=0)
    wanted = bandwidth.jobs(where, threads, largest_cache, free)
    began, before = time.perf_counter(), conditions.read_now()
    rates: list[Rate] = []

    def take(stage: str, measured: Iterable[Rate], begin: float, share: float, count: int) -> None:
        report(stage, begin)
        for position, rate in enumerate(measured, start=1):
            rates.append(rate)
            report(stage, begin + share * min(1.0, position / count))

    take(
        "bandwidth",
        bandwidth.bandwidths(torch, where, wanted, seconds * BANDWIDTH),
        0.0,
        BANDWIDTH,
        len(wanted),
    )
    take("matrix peaks", compute.peaks(torch, where, seconds * COMPUTE), BANDWIDTH, COMPUTE, 16)
    take(
        "overheads",
        overhead.overheads(torch, where, seconds * OVERHEAD),
        BANDWIDTH + COMPUTE,
        OVERHEAD,
        5,
    )
    report("done", 1.0)
    after = conditions.read_now()
    copies = [rate for rate in rates if rate.name == "copy"]
    largest = max(rate.size for rate in copies)
    return Calibration(
        identifier,
        now(),
        where,
        max(rate.best for rate in copies if rate.size == largest),
        best_peaks(rates),
        tuple(rates),
        round(time.perf_counter() - began, 3),
        conditions.others_cores(before, after),
    )


def best_peaks(rates: Iterable[Rate]) -> tuple[tuple[str, float], ...]:
    """The best rate of each format over all shapes."""
    peaks: dict[str, float] = {}
    for rate in rates:
        if rate.name == "peak":
            peaks[rate.format] = max(rate.best, peaks.get(rate.format, 0.0))
    return tuple(peaks.items())
