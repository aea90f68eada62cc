"""Matrix peaks: operations per second of torch's product of two matrices, by number format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from core.machine.calibration.record import Rate, summary
from kernels.dtypes import FLOATS, as_torch

FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8")
# rows, inner, columns: squares, and a prompt of 256 tokens through a wide matrix.
CPU_SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (256, 1024, 4096))
CUDA_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192), (2048, 8192, 16384))
MIN_SAMPLES = 3
# Products of a GPU that are waited for together take so long: a single one takes a tenth of a
# millisecond, starting and waiting for it a tenth of that.
CUDA_SAMPLE_S = 0.004
# No single product may take so many times its share, so that a format without instructions of its
# own cannot eat the time of all.
LONGEST = 2.0


def peaks(torch: Any, device: str, seconds: float) -> Iterator[Rate]:
    """A Rate of each format and shape that torch can multiply here, about `seconds` for all."""
    shapes = CUDA_SHAPES if device == "cuda" else CPU_SHAPES
    formats = [name for name in FORMATS if device == "cuda" or name not in ("tf32", "fp8")]
    share = seconds / len(formats) / len(shapes)
    for name in formats:
        known = 0.0
        for m, k, n in shapes:
            work = 2.0 * m * k * n
            if known and work / known > LONGEST * share:
                continue
            samples = _samples(torch, device, name, (m, k, n), share)
            if samples is None:
                break
            rates = [work / took for took in samples]
            known = max(rates)
            yield summary(
                "peak", "op/s", rates, size=m * k * n, format=name,
                how=f"torch, [{m}, {k}] x [{k}, {n}]",
            )  # fmt: skip


def _samples(
    torch: Any, device: str, name: str, shape: tuple[int, int, int], seconds: float
) -> list[float] | None:
    """Seconds of single products; None when torch has none of this format here."""
    try:
        run = _product(torch, device, name, shape)
        with torch.inference_mode(), _tf32(torch, name == "tf32"):
            _timed(torch, device, run)
            times = 1
            if device == "cuda":
                once = _timed(torch, device, run)
                times = max(1, round(CUDA_SAMPLE_S / once))
            begun, samples = time.perf_counter(), [_timed(torch, device, run, times)]
            while True:
                spent = time.perf_counter() - begun
                if spent > (seconds if len(samples) >= MIN_SAMPLES else 2 * seconds):
                    return samples
                samples.append(_timed(torch, device, run, times))
    except (RuntimeError, NotImplementedError, AttributeError):
        return None


def _product(torch: Any, device: str, name: str, shape: tuple[int, int, int]) -> Callable[[], Any]:
    m, k, n = shape
    # Random numbers: a GPU draws less power for ones and would reach a higher clock.
    if name == "int8":
        a = torch.randint(-127, 128, (m, k), dtype=torch.int8, device=device)
        b = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=device).t()
        return lambda: torch._int_mm(a, b)
    if name == "fp8":
        scale = torch.ones((), device=device)
        a = torch.randn((m, k), device=device).to(torch.float8_e4m3fn)
        b = torch.randn((n, k), device=device).to(torch.float8_e4m3fn).t()
        # The units' own sums: with more exact ones they are slower.
        return lambda: torch._scaled_mm(
            a, b, scale, scale, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    kind = as_torch(name if name in FLOATS else "fp32")
    a, b = torch.randn((m, k), device=device).to(kind), torch.randn((n, k), device=device).to(kind)
    return lambda: torch.nn.functional.linear(a, b)


class _tf32:
    """Lets fp32 products of a GPU run in its TF32 units, or forbids it."""

    def __init__(self, torch: Any, wanted: bool) -> None:
        self._flags = torch.backends.cuda.matmul
        self._wanted = wanted

    def __enter__(self) -> None:
        self._before = self._flags.allow_tf32
        self._flags.allow_tf32 = self._wanted

    def __exit__(self, *_: object) -> None:
        self._flags.allow_tf32 = self._before


def _timed(torch: Any, device: str, run: Callable[[], Any], times: int = 1) -> float:
    """Seconds of one of `times` products."""
    start = time.perf_counter()
    for _ in range(times):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times
