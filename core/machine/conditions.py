"""The conditions under which a trial was timed: load, clock, heat and throttling before and after,
as notes of the trial, and as cautions where they disturb its numbers.

These change from run to run, so they are no part of an environment's id. Which single samples were
disturbed is core.machine.watch's business.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from core.caution import Caution, Note
from core.machine import gpus, readers

# Cores that other processes may take, as a share of ours, before it is worth a caution.
FOREIGN = 0.05
STOLEN = 0.02
# Less than this of one core is the host's usual housekeeping, however small the machine.
HOUSEKEEPING = 0.1
# A clock that differs so much between start and end has changed.
CLOCK = 0.10
USUAL_GOVERNORS = ("performance",)


@dataclass(frozen=True)
class MachineReading:
    """The machine at one moment; None is unknown. Seconds are CPU seconds since boot or start."""

    at: float
    load: float | None
    frequency_mhz: int | None
    temperature_c: float | None
    throttled: int | None
    busy_s: float | None
    stolen_s: float | None
    own_s: float
    gpus: tuple[dict[str, Any], ...] = ()

    def text(self) -> str:
        """`load 1.59, 2596 MHz, 61 °C`."""
        parts = []
        if self.load is not None:
            parts.append(f"load {self.load:.2f}")
        if self.frequency_mhz is not None:
            parts.append(f"{self.frequency_mhz} MHz")
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c:.0f} °C")
        for gpu in self.gpus:
            numbers = (("clock_mhz", "MHz"), ("temperature_c", "°C"), ("power_w", "W"))
            known = [f"{gpu[name]:g} {unit}" for name, unit in numbers if name in gpu]
            parts.append(f"GPU {', '.join(known)}")
        return ", ".join(parts) or "nothing can be read"


def read_now(gpu: bool = False) -> MachineReading:
    """The machine now; `gpu` asks the driver too, which takes up to 50 ms."""
    # Of the processors that this process may use.
    spent = readers.cpu_seconds([f"cpu{cpu}" for cpu in readers.affinity()])
    busy, stolen = spent or (None, None)
    return MachineReading(
        time.perf_counter(),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        readers.frequency_mhz(),
        readers.temperature_c(),
        readers.throttled_times(),
        busy,
        stolen,
        _own_seconds(),
        tuple(gpus.gpu_now()) if gpu else (),
    )


@dataclass
class Conditions:
    """Begin before the timed work, ask for notes() after it."""

    gpu: bool = False
    first: MachineReading = field(init=False)

    def __post_init__(self) -> None:
        self.first = read_now(self.gpu)

    def notes(self) -> list[Note]:
        """One line on start and end, then a caution for each thing that disturbed the numbers."""
        return notes(self.first, read_now(self.gpu))


def notes(first: MachineReading, last: MachineReading) -> list[Note]:
    """What a trial writes into its log about the machine between two readings."""
    lines: list[Note] = [f"machine before the timed work: {first.text()}; after it: {last.text()}"]
    cores = readers.cpu_quota() or len(readers.affinity())
    others = others_cores(first, last)
    if others is not None and others > FOREIGN * cores:
        sentence = f"other processes took {others:.2f} of {cores:g} cores while this was timed"
        lines.append(Caution("load", sentence))
    stolen = _rate(first, last, "stolen_s")
    if stolen is not None and stolen > max(STOLEN * cores, HOUSEKEEPING):
        sentence = f"the host of this virtual machine took {stolen:.2f} cores while this was timed"
        lines.append(Caution("stolen", sentence))
    if first.throttled is not None and last.throttled is not None:
        times = last.throttled - first.throttled
        if times > 0:
            sentence = f"the processor was throttled {times} times while this was timed"
            lines.append(Caution("throttled", sentence))
    if any(gpu.get("throttled") for gpu in last.gpus):
        sentence = "the GPU's driver slowed its clock (heat or power) when this had been timed"
        lines.append(Caution("throttled", sentence))
    before, after = first.frequency_mhz, last.frequency_mhz
    if before and after and abs(after - before) > CLOCK * before:
        sentence = f"the clock went from {before} to {after} MHz while this was timed"
        lines.append(Caution("clock", sentence))
    governor = readers.text(readers.SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor and governor not in USUAL_GOVERNORS:
        sentence = f"the clock governor is `{governor}`, not `performance`: clocks follow the load"
        lines.append(Caution("governor", sentence))
    return lines


def others_cores(first: MachineReading, last: MachineReading) -> float | None:
    """Cores that processes other than this one kept busy between two readings."""
    busy = _rate(first, last, "busy_s")
    elapsed = last.at - first.at
    if busy is None or elapsed <= 0:
        return None
    return max(0.0, busy - (last.own_s - first.own_s) / elapsed)


def _rate(first: MachineReading, last: MachineReading, name: str) -> float | None:
    before, after = getattr(first, name), getattr(last, name)
    elapsed = last.at - first.at
    # The kernel counts in hundredths of a second: too short a time tells nothing.
    if before is None or after is None or elapsed < 0.2:
        return None
    return max(0.0, float(after - before)) / elapsed


def _own_seconds() -> float:
    """CPU seconds of this process and of children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
