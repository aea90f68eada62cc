"""What this machine can do, measured in the benchmark's own run, and the interval of a median.

Owns: copy and read bandwidth, matrix peaks, and order statistics. timing.py sets the shares that
rows are given in relation to these.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch

from kernels import stream

STREAM_BYTES = 64 << 20
PEAK_SIZE = 2048
PEAK_SECONDS = 0.6


def wait_for(device: str) -> Callable[[], object]:
    """What ends when all work given to the device is done."""
    return torch.cuda.synchronize if device == "cuda" else _nothing


def streams(device: str) -> dict[str, tuple[int, Callable[[], object]]]:
    """ "copy" and, on the CPU, "read": the bytes that a pass moves and the pass, with all threads.

    Without a compiler (kernels.stream) torch copies, and nothing is known about reading alone.
    """
    if device == "cpu" and stream.available() is None:
        arrays, threads = stream.Arrays(STREAM_BYTES), torch.get_num_threads()
        return {
            kind: (
                stream.MOVED[kind] * (STREAM_BYTES // 8 * 8),
                lambda kind=kind: arrays.run(kind, STREAM_BYTES, 1, threads),  # type: ignore[misc]
            )
            for kind in ("copy", "read")
        }
    size = STREAM_BYTES * (8 if device == "cuda" else 1)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {"copy": (2 * size, lambda: target.copy_(source))}


def peaks(device: str) -> dict[str, float]:
    """Operations per second of a large bf16 matmul and of `torch._int_mm`, the best of several.

    A product that torch does not have here is left out.
    """
    rates = {}
    size = PEAK_SIZE * (4 if device == "cuda" else 1)
    float_ = torch.randn(size, size, device=device).bfloat16()
    whole = torch.randint(-127, 128, (size, size), device=device, dtype=torch.int8)
    calls: dict[str, Callable[[], object]] = {
        "bf16": lambda: torch.matmul(float_, float_.T),
        "int8": lambda: torch._int_mm(whole, whole.T),
    }
    wait = wait_for(device)
    for name, call in calls.items():
        try:
            call()
        except RuntimeError:
            continue
        best, began = math.inf, time.perf_counter()
        while time.perf_counter() - began < PEAK_SECONDS or best == math.inf:
            wait()
            started = time.perf_counter()
            call()
            wait()
            best = min(best, time.perf_counter() - started)
        rates[name] = 2 * size**3 / best
    return rates


def interval(samples: list[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval from order statistics; with under six samples, their range."""
    ordered = sorted(samples)
    n = len(ordered)
    low, below = 0, 0.0
    # The largest rank that still leaves at most 2.5 % on each side (binomial with p = 1/2).
    while below + math.comb(n, low) / 2**n <= 0.025:
        below += math.comb(n, low) / 2**n
        low += 1
    low = max(0, low - 1)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def _nothing() -> None:
    return None
