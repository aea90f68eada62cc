"""The linear layers' benchmark cases: decoder shapes x rows x formats, with every contender.

Owns the grid, the contenders and their order in memory: a pass takes several copies of the weight
in turn, so that weights come from memory as in a decoder's step. Our kernels run as the engine runs
them (bound once, one program of all copies; on a GPU a captured graph), torch's as plain calls of
its operators (on a GPU a captured graph too), ONNX Runtime as one graph. Checks are
checks.py's.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

from kernels import linear_dense, linear_fp8, linear_lowbit, linear_w8a8, program
from kernels.bench import checks as bench_checks
from kernels.bench import onnx as bench_onnx
from kernels.bench.case import BenchCase, Contender, is_own, missing, name_of, runnable
from kernels.linear_lowbit.codes import LowBit, bits_of
from kernels.linear_w8a8.codes import W8A8
from kernels.registry import KernelInfo, KernelUnavailable

SHAPES = (
    (576, 576), (1536, 576), (576, 1536), (49152, 576), (896, 896), (4864, 896), (896, 4864),
    (2048, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (14336, 4096), (4096, 14336),
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 512)
QUICK_SHAPES = ((1536, 576), (576, 1536), (49152, 576), (4096, 4096))
QUICK_FORMATS = ("bf16", "int8", "int4-g32", "nf4-g64", "w8a8", "fp8-fp8")
QUICK_ROWS = (1, 8, 32, 128)
# Format, kind, group (0: whole rows).
PACKED = (
    ("int8", 0), ("int4-g32", 32), ("int4-g128", 128), ("nf4-g64", 64), ("int3-g64", 64),
    ("int2-g32", 32),
)  # fmt: skip
FORMATS = ("bf16", *(name for name, _ in PACKED), "w8a8", "fp8-fp8")
OPS = {
    "linear_dense": ("bf16",),
    "linear_lowbit": tuple(name for name, _ in PACKED),
    "linear_w8a8": ("w8a8",),
    "linear_fp8": ("fp8-fp8",),
}
# Larger than the last caches of the devices we know, with room.
WORKING_SET = {"cpu": 64 << 20, "cuda": 256 << 20}
# With more rows the weight is a small part of the work, and fewer copies do.
ROWS_OF_ONE = 16
FEW_COPIES = 2
BASELINE = "linear_dense=torch"
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class ShapeGrid:
    """What to time: formats, shapes (N, K) and rows."""

    formats: tuple[str, ...] = FORMATS
    shapes: tuple[tuple[int, int], ...] = QUICK_SHAPES
    rows: tuple[int, ...] = QUICK_ROWS

    def count(self) -> int:
        """How many cases there are."""
        return len(self.formats) * len(self.shapes) * len(self.rows)


def cases(grid: ShapeGrid, device: str) -> Iterator[BenchCase]:
    """The cases of a grid, one at a time; a format's contenders are checked before its first."""
    wrong = bench_checks.Verdicts(device)
    for n, k in grid.shapes:
        dense = torch.randn(n, k, device=device, dtype=DTYPE) / k**0.5
        for format_ in grid.formats:
            small = [rows for rows in grid.rows if rows <= ROWS_OF_ONE]
            for tier in (small, [rows for rows in grid.rows if rows > ROWS_OF_ONE]):
                if tier:
                    yield from _tier(format_, dense, tuple(tier), device, wrong)


def form_of(format_: str, n: int, k: int, device: str = "cpu") -> LowBit | W8A8:
    """Random codes of a format: as good as a trained matrix for speed, and quicker to make."""
    if format_ == "w8a8":
        codes = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=device)
        return W8A8(codes, torch.rand(n, device=device) / k)
    if format_ == "fp8-fp8":
        return linear_fp8.quantize(torch.randn(n, k, device=device))
    name, _, _ = format_.partition("-")
    group = dict(PACKED)[format_] or k
    kind = "int" if name.startswith("int") else name
    bits = bits_of(kind) or int(name.removeprefix("int"))
    codes = torch.randint(0, 2**bits, (n, k), dtype=torch.uint8, device=device)
    scale = (torch.rand(n, -(-k // group), device=device) / k + 1e-4).half().float()
    return LowBit(codes, scale, None, bits, group, kind)


def _tier(
    format_: str,
    dense: torch.Tensor,
    tier: tuple[int, ...],
    device: str,
    wrong: bench_checks.Verdicts,
) -> Iterator[BenchCase]:
    """The cases of one weight over rows that share a number of copies."""
    n, k = dense.shape
    few = tier[0] > ROWS_OF_ONE
    op = next(op for op, formats in OPS.items() if format_ in formats)
    ready: list[Any] = [_Dense(dense, few)]
    if format_ == "bf16":
        ready += [
            _Own(info, dense, few, device)
            for info in runnable(op, device)
            if is_own(info) and format_ in info.formats
        ]
    else:
        form: Any = form_of(format_, n, k, device)
        for info in runnable(op, device):
            if info.name == "torch":
                # The fallback, which is tens of times slower and no peer.
                continue
            try:
                ready.append(_Own(info, form, few, device))
            except KernelUnavailable:
                continue
        if op == "linear_lowbit" and device == "cpu":
            ready += [_Onnx(form, level, few) for level in bench_onnx.LEVELS]
    for rows in tier:
        x = torch.randn(rows, k, device=device, dtype=DTYPE)
        timed = (weights.contender(x, wrong, format_) for weights in ready)
        contenders = tuple(filter(None, timed))
        peak = "int8" if format_ == "w8a8" else "bf16"
        onnx = any("onnx" in contender.kernel for contender in contenders)
        pause = bench_onnx.PAUSE if onnx else 0.0
        yield BenchCase(
            op, f"{n} x {k}", rows, BASELINE, contenders, format_, 2 * rows * n * k, peak, pause
        )


class _Dense:
    """torch's bf16 linear."""

    def __init__(self, weight: torch.Tensor, few: bool) -> None:
        copies = _copies(weight.nbytes, weight.device.type, few)
        self._weights = [weight, *(weight.clone() for _ in range(copies - 1))]

    def contender(
        self, x: torch.Tensor, wrong: bench_checks.Verdicts, format_: str
    ) -> Contender | None:
        weights = self._weights
        call = _pass([functools.partial(linear, x, weight) for weight in weights], x)
        size = weights[0].nbytes + _moved(x, weights[0].shape[0])
        verdict = wrong.of("linear_dense", "torch", "bf16")
        return Contender(BASELINE, size, call, len(weights), wrong=verdict)


class _Own:
    """A kernel of the registry, ours or a binding of torch's."""

    def __init__(self, info: KernelInfo, form: Any, few: bool, device: str) -> None:
        self._info = info
        first = _weight(info, form)
        size = self._size = sum(tensor.nbytes for tensor in first.tensors())
        copies = _copies(size, device, few)
        self._weights = [first, *(_weight(info, form) for _ in range(copies - 1))]

    def contender(
        self, x: torch.Tensor, wrong: bench_checks.Verdicts, format_: str
    ) -> Contender | None:
        if self._info.name == "gemv-bf16" and len(x) > linear_dense.GEMV_ROWS:
            return None
        n = self._weights[0].n
        if is_own(self._info) and x.device.type == "cpu":
            outs = [x.new_empty(len(x), n) for _ in self._weights]
            steps = [weight.bind(x, out) for weight, out in zip(self._weights, outs, strict=True)]
        else:
            steps = [functools.partial(_plain, weight, x) for weight in self._weights]
        return Contender(
            name_of(self._info),
            self._size + _moved(x, n),
            _pass(steps, x),
            len(self._weights),
            is_own(self._info),
            wrong=wrong.of(self._info.op, self._info.name, format_),
        )


class _Onnx:
    """ONNX Runtime's MatMulNBits at an accuracy level."""

    def __init__(self, form: LowBit, level: int, few: bool) -> None:
        self._form, self._name = form, f"onnxruntime level {level}"
        self._absent, self._level, self._session = bench_onnx.absent(), level, None
        if self._absent is None:
            refused = bench_onnx.refuse(form)
            self._absent = None if refused is None else f"MatMulNBits {refused}"
        if self._absent is not None:
            return
        self._size = form.codes.numel() * form.bits // 8 + form.scale.numel() * 4
        self._count = _copies(self._size, "cpu", few)
        try:
            self._session = bench_onnx.Session(form, self._count, level)
        except Exception as error:
            self._absent = f"ONNX Runtime refuses {form.format}: {str(error).splitlines()[0][:120]}"

    def contender(
        self, x: torch.Tensor, wrong: bench_checks.Verdicts, format_: str
    ) -> Contender | None:
        if self._session is None:
            return missing(self._name, self._absent or "")
        threads = "spinning" if self._session.spinning else "sleeping"
        size = self._size + 2 * _moved(x, self._form.n)
        verdict = wrong.of("onnxruntime", str(self._level), format_)
        call = self._session.bind(x)
        return Contender(f"{self._name}, {threads}", size, call, self._count, wrong=verdict)


def _weight(info: KernelInfo, form: Any) -> Any:
    if info.op == "linear_dense":
        return linear_dense.prepare(form.clone(), kernel=info.name)
    if info.op == "linear_w8a8":
        return linear_w8a8.W8A8Weight(form, None, DTYPE, info.name)
    if info.op == "linear_fp8":
        return linear_fp8.Fp8Weight(form, None, DTYPE, info.name)
    return linear_lowbit.LowBitWeight(form, None, DTYPE, info.name)


def _plain(weight: Any, x: torch.Tensor) -> torch.Tensor:
    """torch's operator without our checks around it."""
    product = getattr(weight, "_product", weight)
    y: torch.Tensor = product(x)
    return y


def _copies(size: int, device: str, few: bool) -> int:
    return FEW_COPIES if few else max(2, -(-WORKING_SET[device] // size))


def _moved(x: torch.Tensor, n: int) -> int:
    return x.element_size() * len(x) * (n + x.shape[1])


def _pass(steps: list[Callable[[], object]], x: torch.Tensor) -> Callable[[], object]:
    """All steps by one call: joined into a program where they can be, on a GPU a captured graph."""
    joined = program.join(steps)

    def run() -> None:
        for step in joined:
            step()

    if x.device.type != "cuda":
        return run
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
