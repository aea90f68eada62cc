"""What it costs to start work: a torch operation on one number, our kernels by every way that the
engine calls them, a parallel region; on a GPU a launch and a wait.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

from core.machine.calibration.record import Rate, summary
from kernels import stream
from kernels.program import BoundCall, Program

SAMPLE_S = 0.002
MIN_SAMPLES = 15
IN_PROGRAM = 16

# Each does its thing so many times; seconds are divided by that.
Repeated = Callable[[int], Any]


def overheads(torch: Any, device: str, seconds: float) -> Iterator[Rate]:
    """Seconds a call of each kind, about `seconds` for all."""
    with torch.inference_mode():
        kinds = list(_on_cuda(torch) if device == "cuda" else _on_cpu(torch))
        for name, how, repeated, parts in kinds:
            samples = [took / parts for took in _samples(repeated, seconds / len(kinds))]
            yield summary(
                "overhead", "s", samples, format=name, how=how,
                threads=torch.get_num_threads() if device == "cpu" else 0,
            )  # fmt: skip


def _samples(repeated: Repeated, seconds: float) -> list[float]:
    repeated(1)
    start = time.perf_counter()
    repeated(8)
    once = (time.perf_counter() - start) / 8
    loops = min(10_000, max(1, round(SAMPLE_S / max(once, 1e-8))))
    begun = time.perf_counter()
    samples: list[float] = []
    while True:
        start = time.perf_counter()
        repeated(loops)
        end = time.perf_counter()
        samples.append((end - start) / loops)
        if end - begun > (seconds if len(samples) >= MIN_SAMPLES else 2 * seconds):
            return samples


def _loop(call: Callable[[], Any]) -> Repeated:
    def repeated(times: int) -> None:
        for _ in range(times):
            call()

    return repeated


def _on_cpu(torch: Any) -> Iterator[tuple[str, str, Repeated, int]]:
    number = torch.ones(1)
    out = torch.empty_like(number)
    yield "torch operation", "torch.neg of one number", _loop(lambda: torch.neg(number, out=out)), 1
    if stream.available() is not None:
        return
    library = stream.library()
    nothing = library.trimtab_nothing
    yield "C function", "an empty function through ctypes", _loop(lambda: nothing(None, 0, 1)), 1
    threads = torch.get_num_threads()

    def regions(times: int) -> None:
        library.trimtab_regions(times, threads)

    yield "parallel region", f"an empty OpenMP region of {threads} threads", regions, 1
    from kernels import rms_norm

    x, weight = torch.ones(1, 64), torch.ones(64)
    step = rms_norm.prepare(x, weight, 1e-5, torch.empty_like(x))
    yield "our kernel", "rms_norm of 64 numbers, bound, called from Python", _loop(step), 1
    # So much work that the program thinks several threads worth while.
    bound = [
        BoundCall("calibration", "nothing", (nothing,), _Record(), None, 1 << 20)
        for _ in range(IN_PROGRAM)
    ]
    how = f"an empty kernel in a program of {IN_PROGRAM}, {threads} threads"
    yield "kernel in a program", how, _loop(Program(bound)), IN_PROGRAM


class _Record(ctypes.Structure):
    _fields_ = (("nothing", ctypes.c_int64),)


def _on_cuda(torch: Any) -> Iterator[tuple[str, str, Repeated, int]]:
    number = torch.ones(1, device="cuda")
    out = torch.empty_like(number)

    def launches(times: int) -> None:
        for _ in range(times):
            torch.neg(number, out=out)
        torch.cuda.synchronize()

    def waited() -> None:
        torch.neg(number, out=out)
        torch.cuda.synchronize()

    yield "torch operation", "torch.neg of one number, many without waiting", launches, 1
    yield "launch and wait", "torch.neg of one number, waited for", _loop(waited), 1
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(IN_PROGRAM):
                torch.neg(number, out=out)
    except RuntimeError:
        return

    def replays(times: int) -> None:
        for _ in range(times):
            graph.replay()
        torch.cuda.synchronize()

    yield "kernel in a graph", f"torch.neg in a CUDA graph of {IN_PROGRAM}", replays, IN_PROGRAM
