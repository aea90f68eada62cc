"""The driver's energy counter against its power readings, integrated: on an idle card and under a
steady load. Both are what trials read (core.measure.energy.nvml). Then the joules of a token that a
model in 4 bit decodes at batch 1, over spans long enough for the counter.
"""

from __future__ import annotations

import time
from typing import Any

from core.measure.energy.nvml import CountedReader, Nvml, SampledReader
from tests.evidence.gpu import decoding, results
from tests.evidence.gpu.place import Place

IDLE_S, LOAD_S, WATCH_S = 3.0, 8.0, 1.0
# A square product of so many rows takes an H200 about 1.5 ms; the processor gets a small one.
ROWS = {"cuda": 8192, "cpu": 256}
AGREES = 0.05


def run(place: Place) -> tuple[bool, str]:
    """Write `energy` in steps.json; content when both agree within AGREES under load."""
    nvml = Nvml(StandIn()) if place.rehearsal else _nvml()
    usual = 0.1 if place.rehearsal else 1.0
    scale = min(usual, place.left / 2 / (IDLE_S + LOAD_S + WATCH_S))
    work = _load(place.device)
    data: dict[str, Any] = {
        "updates_s": updates(nvml, WATCH_S * scale),
        "idle": both(nvml, IDLE_S * scale, lambda: time.sleep(0.01)),
    }
    work()
    data["load"] = both(nvml, LOAD_S * scale, work)
    results.add_json(place, "steps.json", "energy", data)
    load, idle = data["load"], data["idle"]
    if load["ratio"] is None:
        return False, "this GPU counts no energy: trials integrate its power readings"
    told = (
        f"under load {load['counted_w']:.0f} W by the counter, {load['integrated_w']:.0f} W by"
        f" power readings (ratio {load['ratio']:.3f}); idle {idle['counted_w']:.0f} W"
    )
    data["decode"] = decoding.joules(place, nvml, idle["counted_w"])
    results.add_json(place, "steps.json", "energy", data)
    spans = data["decode"]["spans"]
    return abs(load["ratio"] - 1) <= AGREES and len(spans) > 0, f"{told}; {len(spans)} spans"


def both(nvml: Nvml, seconds: float, work: Any) -> dict[str, float | None]:
    """Watts by the counter and by integrated readings while `work` is repeated for so long."""
    counts = nvml.millijoules() is not None
    counted, sampled = CountedReader(nvml), SampledReader(nvml)
    if counts:
        counted.start()
    sampled.start()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
    integral = sampled.lap()
    lap = counted.lap() if counts else None
    watts = integral.total / integral.seconds
    counted_w = None if lap is None else lap.total / lap.seconds
    return {
        "seconds": integral.seconds,
        "integrated_w": watts,
        "counted_w": counted_w,
        "ratio": None if counted_w is None or not watts else counted_w / watts,
    }


def updates(nvml: Nvml, seconds: float) -> list[float]:
    """Seconds between changes of the counter, as they were seen."""
    began = time.perf_counter()
    value, at, gaps = nvml.millijoules(), None, []
    while time.perf_counter() - began < seconds:
        now = nvml.millijoules()
        if now != value:
            moment = time.perf_counter()
            if at is not None:
                gaps.append(round(moment - at, 4))
            value, at = now, moment
        time.sleep(0.001)
    return gaps


def _nvml() -> Nvml:
    import pynvml

    return Nvml(pynvml)


def _load(device: str) -> Any:
    """A call that keeps the device busy for some milliseconds, and waits."""
    import torch

    rows = ROWS[device]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(rows, rows, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)

    def work() -> None:
        for _ in range(8):
            torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()

    return work


class StandIn:
    """A card of a rehearsal that draws 100 W whatever happens, and counts every 5 ms."""

    class NVMLError(Exception):
        """What pynvml raises."""

    class NVMLError_NotSupported(NVMLError):
        """Likewise."""

    def nvmlInit(self) -> None:
        """See pynvml."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        """See pynvml."""
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        """See pynvml; millijoules."""
        return int(time.perf_counter() / 0.005) * 500

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        """See pynvml; milliwatts."""
        return 100_000
