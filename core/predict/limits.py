"""How fast a target can be at most, and which share of that real programs reach. Knows no models.

What is typical of a class of device is typical.py's business, which is asked first for targets of
the catalogue. The shares below are ranges over programs we measured or read about, wide on purpose:

- memory, 0.15 to 0.9: decoding a 135M model, transformers in eager mode reached 0.20 of the copy
  bandwidth, plain torch modules 0.32, llama.cpp 0.45 to 0.57; good GPU kernels reach 0.8 to 0.9.
- compute, 0.05 to 0.8: prompts of 128 tokens reached 0.1 to 0.2 of the bf16 matrix peak on a CPU;
  FlashAttention-3 reaches 0.75 of an H100.
- compute on packed 4- or 8-bit weights, 0.02 to 0.8: at 128 rows packed CPU kernels were 3 to 10
  times slower than bf16.
- overhead of a forward pass, a layer: 10 to 100 us on a GPU (5 to 8 kernels of at least 2 us each,
  as in a CUDA graph, to eager launches), 2 to 200 us on a CPU (thread barriers, to Python).
"""

from __future__ import annotations

from dataclasses import dataclass

from core.machine.calibrate import Calibration
from core.machine.environment import environment
from core.target import Target

MEMORY = (0.15, 0.9)
COMPUTE = (0.05, 0.8)
PACKED_COMPUTE = (0.02, 0.8)
LAYER_OVERHEAD_S = {"cuda": (1e-5, 1e-4), "cpu": (2e-6, 2e-4)}
# A copy reads and writes; reading alone can be faster than the copy that calibrated the bandwidth.
READ_OVER_COPY = 1.3
# Weights of this size can stay in a last-level cache, which is faster than memory.
CACHED_BYTES = 64e6
CACHE_OVER_MEMORY = 3.0
# Without a calibration: bytes/s per core, and FLOPs per cycle and core by the CPU's best flag.
ASSUMED_BANDWIDTH_PER_CORE = 10e9
ASSUMED_HZ = 2.5e9
ASSUMED_SPREAD = 3.0
FLOPS_PER_CYCLE = (
    ("amx_bf16", 512.0),
    ("avx512_bf16", 128.0),
    ("avx512f", 64.0),
    ("avx2", 32.0),
    ("asimd", 16.0),
)


@dataclass(frozen=True)
class Rates:
    """Bytes/s, operations/s (None: unknown), seconds a layer: a corner of what is possible, or what
    is typical. `overlapped` says that a pass moves and computes at the same time."""

    bandwidth: float
    compute: float | None
    layer_overhead_s: float = 0.0
    overlapped: bool = True


@dataclass(frozen=True)
class TargetLimits:
    """A target's limits: `ideal` as stated or measured, `best` and `worst` of real programs."""

    ideal: Rates
    best: Rates
    worst: Rates
    basis: str


def limits(
    target: Target, calibration: Calibration | None, packed: bool, read_bytes: float
) -> TargetLimits | None:
    """The limits of a cuda or cpu target; None when its bandwidth is unknown.

    `packed` weights multiply at a smaller share of the peak; `read_bytes` a pass decide whether
    the weights can stay in a cache.
    """
    compute_share = PACKED_COMPUTE if packed else COMPUTE
    memory_low, memory_high = MEMORY
    if calibration is not None:
        bandwidth: float | None = calibration.bandwidth
        peaks = dict(calibration.peaks)
        basis = f"bandwidth and peak measured here on {calibration.taken_at[:10]}"
        memory_high = READ_OVER_COPY
    elif target.local and target.bandwidth is None:
        bandwidth, peaks, basis = _assumed(target)
        memory_low, memory_high = memory_low / ASSUMED_SPREAD, memory_high * ASSUMED_SPREAD
        compute_share = (compute_share[0] / ASSUMED_SPREAD, compute_share[1] * ASSUMED_SPREAD)
    else:
        bandwidth, peaks = target.bandwidth, dict(target.peaks)
        basis = f"limits of {target.id} as its catalogue entry states them"
        if target.local:
            basis, memory_high = "bandwidth and peak measured here", READ_OVER_COPY
    if bandwidth is None:
        return None
    if target.kind == "cpu" and read_bytes < CACHED_BYTES:
        memory_high *= CACHE_OVER_MEMORY
        basis += "; weights this small may stay in a cache"
    compute = next((peaks[name] for name in ("bf16", "fp16", "fp32") if name in peaks), None)
    low, high = compute_share
    overhead = LAYER_OVERHEAD_S[target.kind]
    return TargetLimits(
        ideal=Rates(bandwidth, compute),
        best=Rates(
            bandwidth * memory_high,
            None if compute is None else compute * high,
            overhead[0],
        ),
        worst=Rates(
            bandwidth * memory_low,
            None if compute is None else compute * low,
            overhead[1],
        ),
        basis=f"{basis}; programs reach {memory_low:.2g} to {memory_high:.2g} of the bandwidth and "
        f"{low:.2g} to {high:.2g} of the peak",
    )


def _assumed(target: Target) -> tuple[float, dict[str, float], str]:
    """Limits of an uncalibrated CPU from its core count and flags; an assumption, and called so."""
    _, facts = environment()
    cores = int(facts["cores"])
    flags = set(facts.get("flags", []))
    flops = next((rate for flag, rate in FLOPS_PER_CYCLE if flag in flags), 8.0)
    basis = (
        f"not calibrated: {ASSUMED_BANDWIDTH_PER_CORE / 1e9:g} GB/s and {flops:g} FLOPs a cycle "
        f"assumed for each of {cores} cores"
    )
    return cores * ASSUMED_BANDWIDTH_PER_CORE, {"bf16": cores * flops * ASSUMED_HZ}, basis
