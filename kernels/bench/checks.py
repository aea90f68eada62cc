"""Whether a contender computes what it should: each against fp64 on odd shapes, once a format.

Owns the shapes, the tolerances and the sentences; a contender with a sentence gets no speed-up.
"""

from typing import Any

import torch

from kernels import linear_dense, linear_fp8, linear_lowbit, linear_w8a8
from kernels.bench import onnx as bench_onnx
from kernels.linear_dense import reference as dense_reference
from kernels.linear_fp8 import reference as fp8_reference
from kernels.linear_fp8.codes import quantize_rows
from kernels.linear_lowbit import reference as lowbit_reference
from kernels.linear_lowbit.codes import LowBit
from kernels.linear_w8a8 import reference as w8a8_reference
from kernels.linear_w8a8.codes import W8A8
from kernels.registry import KernelUnavailable

# Rows, N, K. ONNX Runtime takes whole blocks only.
ODD_SHAPES = ((1, 1, 32), (3, 17, 96), (17, 33, 100), (5, 130, 577))
WHOLE_SHAPES = ((1, 1, 128), (5, 33, 384))
TOLERANCE = 0.01
# Accuracy level 4 rounds x to int8, a scale for each block.
ROUNDED_TOLERANCE = 0.03
DTYPE = torch.bfloat16


class Verdicts:
    """The sentence against a kernel and format, or None; found out on the first question."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: dict[tuple[str, str, str], str | None] = {}

    def of(self, op: str, kernel: str, format_: str) -> str | None:
        """None when the kernel agrees with fp64."""
        key = (op, kernel, format_)
        if key not in self._known:
            self._known[key] = _check(op, kernel, format_, self._device)
        return self._known[key]


def _check(op: str, kernel: str, format_: str, device: str) -> str | None:
    generator = torch.Generator().manual_seed(0)
    allowed = ROUNDED_TOLERANCE if (op, kernel) == ("onnxruntime", "4") else TOLERANCE
    for rows, n, k in WHOLE_SHAPES if op == "onnxruntime" else ODD_SHAPES:
        weight = torch.randn(n, k, generator=generator)
        x = torch.randn(rows, k, generator=generator).to(DTYPE)
        try:
            pair = _both(op, kernel, format_, weight, x, device)
        except KernelUnavailable:
            # A shape that it refuses (and the caller is told) is no wrong result.
            continue
        if pair is None:
            continue
        got, exact = pair
        # Relative to the size that a sum of k products has.
        error = ((got.cpu().double() - exact).abs() / (exact.abs() + k**0.5)).max().item()
        if not error <= allowed:
            return (
                f"{op}={kernel} in {format_} is off by {error:.3g} (allowed {allowed}) from its "
                f"reference at {rows} x {n} x {k}"
            )
    return None


def _both(
    op: str, kernel: str, format_: str, weight: torch.Tensor, x: torch.Tensor, device: str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The kernel's y and the reference's; None where the kernel does not take the shape."""
    if op == "linear_dense":
        dense = weight.to(DTYPE)
        got = linear_dense.linear(x.to(device), dense.to(device), kernel=kernel)
        return got, dense_reference.linear(x, dense)
    if op == "linear_w8a8":
        whole = linear_w8a8.quantize(weight)
        moved: Any = W8A8(whole.codes.to(device), whole.scale.to(device))
        got = linear_w8a8.W8A8Weight(moved, None, DTYPE, kernel)(x.to(device))
        codes, scales = w8a8_reference.quantize_rows(x, None)
        return got, w8a8_reference.linear(codes, scales, whole)
    if op == "linear_fp8":
        whole8 = linear_fp8.quantize(weight)
        moved8 = linear_fp8.Fp8.of(_moved(whole8, device))
        got = linear_fp8.Fp8Weight(moved8, None, DTYPE, kernel)(x.to(device))
        return got, fp8_reference.linear(*quantize_rows(x), whole8)
    form = quantized(format_, weight)
    exact = lowbit_reference.linear(x, form)
    if op == "onnxruntime":
        if bench_onnx.refuse(form) is not None:
            return None
        return bench_onnx.Session(form, 1, int(kernel)).product(x), exact
    weight_ = linear_lowbit.LowBitWeight(_moved(form, device), None, DTYPE, kernel)
    return weight_(x.to(device)), exact


def _moved(form: LowBit, device: str) -> LowBit:
    codes, scale = form.codes.to(device), form.scale.to(device)
    return LowBit(codes, scale, None, form.bits, form.group_size, form.kind)


def quantized(format_: str, weight: torch.Tensor) -> LowBit:
    """The weight rounded to nearest in a format's name, symmetric."""
    name, _, group = format_.partition("-g")
    kind = "int" if name.startswith("int") else name
    bits = int(name.removeprefix("int")) if kind == "int" else 4
    return linear_lowbit.quantize(weight, bits, int(group or weight.shape[1]), kind)
