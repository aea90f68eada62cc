"""What published programs typically reach on a target that is not here, by its class of device.

The shares are those of core/catalogue/classes.toml, fitted to published rates. They say nothing
of this machine, whose own calibration is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.catalogue import targets
from core.catalogue.classes import DeviceClass, classes
from core.predict.limits import CACHE_OVER_MEMORY, CACHED_BYTES, Rates
from core.predict.work import DecoderWork
from core.target import Target
from core.techniques.effects import Effects
from kernels.lowbit_bytes import Fp8Bytes
from kernels.w8a8_bytes import W8A8Bytes

# Above this bandwidth a GPU has HBM, below it GDDR.
HBM_BANDWIDTH = 1.2e12
# From this bandwidth on the memory of a laptop or board is wide LPDDR5, shared with a large GPU.
WIDE_LPDDR = {"laptop": 100e9, "board": 40e9}
# Bits a weight, above which it counts as 16 or as 8 bit; geometric middles.
WIDE_BITS, NARROW_BITS = 11.3, 5.7
# Peaks are stated with 32-bit accumulation; programs that accumulate in 16 bit exceed some of them.
PEAK_OVER_STATED = 2.0
_BY_PLACE = {
    "cloud": "cpu-server",
    "laptop": "cpu-client",
    "desktop": "cpu-client",
    "phone": "cpu-phone",
    "board": "cpu-board",
}


@dataclass(frozen=True)
class Typical:
    """Rates that programs typically reach, by which factor they differ from that either way, what
    no program exceeds, and the sentence that says so."""

    rates: Rates
    spread: float
    fastest: Rates
    basis: str


def typical(target: Target, work: DecoderWork, effect: Effects) -> Typical | None:
    """What is typical of `target` with weights as `work` holds them; None for this machine, for a
    target of no class, and where no bandwidth is stated."""
    device = device_class(target)
    if device is None or target.bandwidth is None:
        return None
    width = _width(work)
    share = dict(device.bandwidth)[width]
    peak, product = _peak(target, effect, width)
    reached = dict(device.compute)[product]
    rates = Rates(
        target.bandwidth * share,
        None if peak is None else peak * reached,
        device.layer_overhead_s,
        device.overlapped,
    )
    cached = target.kind == "cpu" and work.read_bytes(1) < CACHED_BYTES
    fastest = Rates(
        target.bandwidth * (CACHE_OVER_MEMORY if cached else 1.0),
        None if peak is None else peak * PEAK_OVER_STATED,
    )
    basis = (
        f"limits of {target.id} as its catalogue entry states them; published programs on a "
        f"{device.title} typically reach {share:.2g} of the bandwidth and {reached:.2g} of the peak"
        f", and take {device.layer_overhead_s * 1e6:g} µs a layer beyond; a factor of "
        f"{device.spread:g} either way"
    )
    return Typical(rates, device.spread, fastest, basis)


def device_class(target: Target) -> DeviceClass | None:
    """The class that the catalogue names for `target`, else the one of its kind and place."""
    if target.local or target.kind == "mcu":
        return None
    entry = targets.entry(target.id)
    if entry is not None and entry.device_class:
        return classes().device(entry.device_class)
    if target.kind == "cuda" and target.place in _BY_PLACE:
        if (target.bandwidth or 0.0) >= HBM_BANDWIDTH:
            return classes().device("gpu-hbm")
        return classes().device("gpu-gddr" if target.place == "cloud" else "gpu-geforce")
    if (target.bandwidth or 0.0) >= WIDE_LPDDR.get(target.place, np.inf):
        return classes().device("cpu-soc")
    return classes().device(_BY_PLACE.get(target.place, ""))


def _width(work: DecoderWork) -> str:
    """The nearest of 16, 8 and 4 bits a weight, on average over what a token reads."""
    bits = 8 * work.read_bytes(1) / work.shape.read_params()
    return "16" if bits > WIDE_BITS else "8" if bits > NARROW_BITS else "4"


def _peak(target: Target, effect: Effects, width: str) -> tuple[float | None, str]:
    """The peak that a product's share is of, and which product it is."""
    dense = next((peak for name in ("bf16", "fp16", "fp32") if (peak := target.peak(name))), None)
    if not effect.packed:
        return dense, "16"
    if isinstance(effect.stored, Fp8Bytes):
        narrow = target.peak("fp8")
    elif isinstance(effect.stored, W8A8Bytes):
        narrow = target.peak("int8")
    else:
        return dense, "16" if width == "16" else "weights"
    return (dense, "weights") if narrow is None else (narrow, "both")
