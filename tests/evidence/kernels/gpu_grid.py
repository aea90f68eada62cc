"""What `python -m tests.evidence gpu` times: the cases in their order, and how one is timed.

A case's ways and torch's bf16 product take turns. A pass goes over copies of the weight that are
together larger than the last cache, as one captured graph. In the rehearsal the same calls are
timed on the wall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from kernels import linear_fp8, linear_lowbit, linear_w8a8
from kernels.bench.limits import interval
from kernels.bench.linear import WORKING_SET, form_of
from kernels.choice import by_rule
from kernels.cuda import capture
from kernels.linear_dense import DenseWeight

# (N, K): the matrices of a layer, with q, k, v and gate, up as one.
LLAMA = ((28672, 4096), (4096, 14336), (6144, 4096), (4096, 4096))
QWEN = ((9728, 896), (896, 4864), (1152, 896), (896, 896))
TINY = ((48, 64), (32, 96))
FEW, MANY, LARGE = (1, 2, 4, 8), (64, 128, 512), (128, 512)
PACKED = ("int4-g32", "int4-g128", "int8", "nf4-g64")
BOTH = ("w8a8", "fp8-fp8")
DENSE = "bf16"
SAMPLES = 15
# More copies than this change nothing but the time they take to make.
MOST_COPIES = 48
# Weights are kept for later cases while so much memory is free.
SPARE_BYTES = 24 << 30
# How far y may be from the product in fp32, in parts of its norm: bf16 alone, or x rounded as well.
ALLOWED = {"w8a8": 0.03, "fp8-fp8": 0.08}
ALLOWED_ELSE = 0.01


@dataclass(frozen=True)
class Case:
    """A format's matrix of n by k with so many rows of x."""

    format: str
    n: int
    k: int
    rows: int


def cases(rehearsal: bool) -> list[Case]:
    """Every case once, the most decisive first: the targets' ends, what lies between, the rest."""
    if rehearsal:
        few = [Case(name, *TINY[0], rows) for rows in (1, 17) for name in ("int4-g32", *BOTH)]
        return few + [Case(name, *TINY[1], 2) for name in ("int4-g32", "nf4-g64")]
    tiers = (
        (("int4-g32",), LLAMA, (1, 8, 64)),
        (BOTH, LLAMA, (128,)),
        (("int4-g32",), LLAMA, (512,)),
        (BOTH, LLAMA, (512,)),
        (("int4-g128",), LLAMA, (1, 8, 64)),
        (("int4-g32",), LLAMA, (2, 4, 128)),
        (("int8", "nf4-g64"), LLAMA[:1], (1, 8, 64)),
        (("int4-g32", "int8"), QWEN, (1, 8)),
        (("int4-g128",), LLAMA, (2, 4, 128, 512)),
        (("int8", "nf4-g64"), LLAMA[1:], (1, 8, 64)),
        (PACKED, LLAMA, (16, 32)),
        (BOTH, LLAMA, (1, 8, 16, 32, 64)),
        (PACKED, LLAMA, (*FEW, *MANY)),
        ((*PACKED, *BOTH), QWEN, (*FEW, 16, 32, *MANY)),
        ((*PACKED, *BOTH), LLAMA, (*FEW, 16, 32, *MANY)),
    )
    listed = (
        Case(name, n, k, rows)
        for names, shapes, counts in tiers
        for rows in counts
        for name in names
        for n, k in shapes
    )
    return list(dict.fromkeys(listed))


class Bench:
    """Makes the weights of a case, and times every way to multiply them beside bf16."""

    def __init__(self, device: str, rehearsal: bool) -> None:
        self._device, self._rehearsal = torch.device(device), rehearsal
        self._forms: dict[tuple[str, int, int], tuple[Any, list[Any]]] = {}
        self._floats: dict[tuple[int, int], list[DenseWeight]] = {}

    def rows(self, case: Case) -> Iterator[dict[str, Any]]:
        """A row for every way, and one for bf16."""
        form, weights = self._packed(case)
        x = self._x(case)
        outs = [x.new_empty(case.rows, case.n) for _ in weights]
        first = weights[0]
        exact = x.float() @ form.dequantize().T if not isinstance(form, torch.Tensor) else None
        calls: dict[str, list[Callable[[], object]]] = {}
        told: dict[str, dict[str, Any]] = {}
        ways = [weight._ways.offered(case.rows) for weight in weights]
        for label in ways[0]:
            steps = [partial(way[label], x, out) for way, out in zip(ways, outs, strict=True)]
            started = time.perf_counter()
            try:
                steps[0]()
                wait(self._device)
            except Exception as error:
                told[label] = {"failed": f"{type(error).__name__}: {error}"[:400]}
                continue
            off = None if exact is None else _off(outs[0], exact)
            right = off is not None and off <= ALLOWED.get(case.format, ALLOWED_ELSE)
            told[label] = {
                "first_call_s": time.perf_counter() - started,
                "configuration": configuration(case.format, label),
                "off": off,
                "right": right,
            }
            calls[label] = steps
        del exact
        floats = self._dense(case.n, case.k)
        bound = [x.new_empty(case.rows, case.n) for _ in floats]
        calls[DENSE] = [weight.bind(x, out) for weight, out in zip(floats, bound, strict=True)]
        passes = {}
        for label, steps in calls.items():
            try:
                passes[label] = captured(steps, self._device, self._rehearsal)
            except Exception as error:
                if label == DENSE:
                    raise
                told[label]["failed"] = f"capture: {type(error).__name__}: {error}"[:400]
        times = in_turns(passes, calls, 3 if self._rehearsal else SAMPLES)
        size = {label: sum(side.nbytes for side in first.tensors()) for label in calls}
        size[DENSE] = floats[0].weight.nbytes
        chosen = self._chosen(first, case.rows)
        for label, facts in told.items():
            yield _row(case, label, facts, times, size, chosen)
        yield _row(case, DENSE, {"right": True}, times, size, chosen)

    def _chosen(self, weight: Any, rows: int) -> str:
        """What a step of the engine would run; the answer stays on this machine for the studies."""
        name, call = weight._ways.at(rows)
        same = (label for label, way in weight._ways.offered(rows).items() if _same(way, call))
        return next(same, str(name))

    def _x(self, case: Case) -> torch.Tensor:
        x = torch.randn(case.rows, case.k, device=self._device)
        return x.to(torch.bfloat16)

    def _packed(self, case: Case) -> tuple[Any, list[Any]]:
        key = (case.format, case.n, case.k)
        if key not in self._forms:
            if self._device.type == "cuda" and torch.cuda.mem_get_info()[0] < SPARE_BYTES:
                self._forms.clear()
            form = form_of(case.format, case.n, case.k, str(self._device))
            kind = {"w8a8": linear_w8a8.W8A8Weight, "fp8-fp8": linear_fp8.Fp8Weight}
            make = kind.get(case.format, linear_lowbit.LowBitWeight)
            named = "triton" if self._rehearsal else None
            weight: Any = make(form, None, torch.bfloat16, named)
            count = self._copies(sum(side.nbytes for side in weight.tensors()))
            more = [make(form, None, torch.bfloat16, named) for _ in range(count - 1)]
            self._forms[key] = form, [weight, *more]
        return self._forms[key]

    def _dense(self, n: int, k: int) -> list[DenseWeight]:
        if (n, k) not in self._floats:
            first = (torch.randn(n, k, device=self._device) / k**0.5).to(torch.bfloat16)
            copies = [first, *(first.clone() for _ in range(self._copies(first.nbytes) - 1))]
            self._floats[n, k] = [DenseWeight(copy, kernel="torch") for copy in copies]
        return self._floats[n, k]

    def _copies(self, size: int) -> int:
        if self._rehearsal:
            return 2
        return min(MOST_COPIES, max(2, -(-WORKING_SET["cuda"] // size)))


def timed(
    calls: dict[str, list[Callable[[], object]]], device: torch.device, rehearsal: bool
) -> dict[str, list[float]]:
    """Seconds of one call, SAMPLES for each contender, in turns; a pass is one captured graph."""
    passes = {name: captured(steps, device, rehearsal) for name, steps in calls.items()}
    return in_turns(passes, calls, 3 if rehearsal else SAMPLES)


def in_turns(
    passes: dict[str, Callable[[], float]],
    calls: dict[str, list[Callable[[], object]]],
    samples: int,
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, in turns."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(samples):
        for name, run in passes.items():
            times[name].append(run() / len(calls[name]))
    return times


def captured(
    steps: list[Callable[[], object]], device: torch.device, rehearsal: bool
) -> Callable[[], float]:
    """Seconds of a pass over all steps, each time it is called."""

    def run() -> None:
        for step in steps:
            step()

    if rehearsal:

        def on_the_wall() -> float:
            started = time.perf_counter()
            run()
            return time.perf_counter() - started

        return on_the_wall
    run()
    wait(device)
    with by_rule():
        graph = capture(run, device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def on_the_device() -> float:
        graph.replay()
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return on_the_device


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def configuration(format_: str, label: str) -> dict[str, Any] | None:
    """The blocks that the autotuner chose for the call just made; None for torch's kernels."""
    name, _, variant = label.partition("/")
    if name != "triton":
        return None
    if format_ in BOTH:
        from kernels.linear_fp8 import gpu as fp8
        from kernels.linear_w8a8 import gpu as w8a8

        kernel: Any = (fp8 if format_ == "fp8-fp8" else w8a8).product_kernel
    else:
        from kernels.linear_lowbit.gpu import kernels as lowbit

        kernel = lowbit.few_rows if variant == "few" else lowbit.many_rows
    blocks = kernel.best_config.all_kwargs()
    return {key: value for key, value in blocks.items() if value is not None}


def _row(
    case: Case,
    label: str,
    facts: dict[str, Any],
    times: dict[str, list[float]],
    size: dict[str, int],
    chosen: str,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "format": case.format if label != DENSE else DENSE,
        "beside": case.format,
        "n": case.n,
        "k": case.k,
        "rows": case.rows,
        "kernel": label,
        "chosen": label == chosen,
        **facts,
    }
    samples = times.get(label)
    if samples is None:
        return row
    middle, low, high = interval(samples)
    ratios = [theirs / ours for theirs, ours in zip(times[DENSE], samples, strict=True)]
    moved = size[label] + 2 * case.rows * (case.n + case.k)
    return row | {
        "bytes": moved,
        "us": middle * 1e6,
        "us_low": low * 1e6,
        "us_high": high * 1e6,
        "samples_us": [round(value * 1e6, 3) for value in samples],
        "gb_per_s": moved / middle / 1e9,
        "tflops": 2 * case.rows * case.n * case.k / middle / 1e12,
        "to_bf16": list(interval(ratios)),
    }


def _same(way: Any, call: Any) -> bool:
    """Whether two calls of a product are one: partials of a method, or the method itself."""
    parts = [(getattr(each, "func", each), getattr(each, "keywords", None)) for each in (way, call)]
    return bool(parts[0] == parts[1])


def _off(y: torch.Tensor, exact: torch.Tensor) -> float | None:
    """Distance to the exact product in parts of its norm; None where it is not finite."""
    off = float((y.float() - exact).norm() / exact.norm())
    return off if off == off and off != float("inf") else None
