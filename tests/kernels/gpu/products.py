"""What every linear kernel of a GPU must do, on a GPU or in Triton's interpreter.

A kernel is compared with fp64 on the very inputs that it multiplies (x rounded as it rounds), with
a bias, and with a residual that is the output itself. On a GPU the call is also captured, and the
graph is replayed with another x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kernels import linear_dense, linear_fp8, linear_lowbit, linear_w8a8
from kernels.choice import by_rule
from kernels.linear_fp8 import codes as fp8_codes
from kernels.linear_fp8 import reference as fp8_reference
from kernels.linear_lowbit import reference as lowbit_reference
from kernels.linear_lowbit.codes import DoubleScale, LowBit
from kernels.linear_w8a8 import W8A8
from kernels.linear_w8a8 import codes as w8a8_codes
from kernels.linear_w8a8 import reference as w8a8_reference

# Kind, bits, group (0: a whole row), symmetric, format of the scales.
LOWBIT: dict[str, tuple[str, int, int, bool, str]] = {
    "int4-g32": ("int", 4, 32, True, "fp16"),
    "int4-g128 with zeros": ("int", 4, 128, False, "fp32"),
    "int8": ("int", 8, 0, True, "fp16"),
    "int8 with zeros": ("int", 8, 0, False, "fp16"),
    "int5-g32": ("int", 5, 32, True, "fp16"),
    "int3-g64": ("int", 3, 64, True, "fp32"),
    "int2-g32 with zeros": ("int", 2, 32, False, "fp16"),
    "int1-g32": ("int", 1, 32, False, "fp16"),
    "nf4-g64": ("nf4", 4, 64, True, "fp16"),
    "nf4-g64 double": ("nf4", 4, 64, True, "u8"),
    "fp4-g32": ("fp4", 4, 32, True, "fp16"),
    "ternary": ("ternary", 2, 0, True, "fp16"),
    "binary-g64": ("binary", 1, 64, True, "fp16"),
    "e4m3": ("e4m3", 8, 0, True, "fp16"),
    "e5m2-g64": ("e5m2", 8, 64, True, "fp16"),
}
# How far y may be off, in parts of |y| + sqrt(k); the interpreter cuts off where a GPU rounds.
ALLOWED = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
WEIGHTS = {
    "linear_lowbit": linear_lowbit.LowBitWeight,
    "linear_w8a8": linear_w8a8.W8A8Weight,
    "linear_fp8": linear_fp8.Fp8Weight,
}


def form_of(format_: str, n: int, k: int) -> Any:
    """Random weights [n, k] in a format of LOWBIT, or `w8a8`, `w8a8-static`, `w8a8 apart`,
    `fp8-fp8`, `bf16`, `fp16`, `fp32`; on the CPU.
    """
    weight = torch.randn(n, k)
    if format_ in LOWBIT:
        kind, bits, group, symmetric, scales = LOWBIT[format_]
        return linear_lowbit.quantize(weight, bits, group or k, kind, symmetric, scales)
    if format_ == "w8a8 apart":
        return linear_w8a8.quantize(weight, None, torch.tensor([0, 3, k - 1], dtype=torch.int32))
    if format_.startswith("w8a8"):
        return linear_w8a8.quantize(weight, 0.02 if format_.endswith("static") else None)
    if format_ == "fp8-fp8":
        return linear_fp8.quantize(weight)
    return weight


def moved(form: Any, device: str) -> Any:
    """The form on a device."""
    if isinstance(form, W8A8):
        apart = None if form.apart is None else form.apart.to(device)
        return W8A8(form.codes.to(device), form.scale.to(device), form.x_scale, apart)
    if isinstance(form, LowBit):
        double = form.double and DoubleScale(
            form.double.codes.to(device), form.double.step.to(device), form.double.low.to(device)
        )
        zero = None if form.zero is None else form.zero.to(device)
        sides = (form.codes.to(device), form.scale.to(device), zero, form.bits, form.group_size)
        return type(form)(*sides, form.kind, form.scale_format, double)
    return form.to(device)


def exact(form: Any, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """fp64 y of x on the CPU, as the kernels of the form's operation round x."""
    x, bias = x.cpu(), None if bias is None else bias.cpu()
    if isinstance(form, W8A8):
        kept = x if form.apart is None else x.index_fill(1, form.apart.long(), 0)
        rounded = w8a8_codes.quantize_rows(kept, form.x_scale)
        return w8a8_reference.linear(*rounded, form, bias)
    if isinstance(form, linear_fp8.Fp8):
        return fp8_reference.linear(*fp8_codes.quantize_rows(x), form, bias)
    if isinstance(form, LowBit):
        return lowbit_reference.linear(x, form, bias)
    y = x.double() @ form.to(x.dtype).double().T
    return y if bias is None else y + bias.double()


def weight_of(
    form: Any, bias: torch.Tensor | None, dtype: torch.dtype, kernel: str | None, device: str
) -> Any:
    """Laid out on the device, for the kernel named."""
    there = moved(form, device)
    bias = None if bias is None else bias.to(device)
    if isinstance(form, torch.Tensor):
        return linear_dense.DenseWeight(there.to(dtype), bias, kernel)
    return WEIGHTS[form.op](there, bias, dtype, kernel)


def check(
    format_: str,
    n: int,
    k: int,
    counts: tuple[int, ...],
    dtype: torch.dtype,
    kernel: str | None,
    device: str,
    allowed: float = 0.0,
) -> float:
    """Every way of a kernel for so many rows of x; the largest error in parts of what is allowed.

    Raises AssertionError with the case.
    """
    torch.manual_seed(n + k)
    form = form_of(format_, n, k)
    bias = torch.randn(n).to(dtype)
    weight = weight_of(form, bias, dtype, kernel, device)
    allowed = allowed or ALLOWED[dtype]
    if device == "cpu" and dtype is torch.bfloat16:
        allowed *= 2
    largest = 0.0
    for rows in counts:
        for label, call in ways(weight, rows).items():
            x = torch.randn(rows, k).to(dtype)
            side = torch.randn(rows, n).to(dtype)
            y = side.to(device, copy=True)
            inputs = x.to(device)
            call(inputs, y, y)
            wanted = exact(form, x, bias) + side.double()
            errors = [off(y, wanted, k)]
            if device != "cpu":
                errors += replayed(call, inputs, y, form, bias, k)
            error = max(errors) / allowed
            assert error < 1, (
                format_,
                label,
                n,
                k,
                rows,
                str(dtype),
                [e / allowed for e in errors],
            )
            largest = max(largest, error)
    return largest


def ways(weight: Any, rows: int) -> dict[str, Callable[..., object]]:
    """Every call of a weight that writes residual + y of x to an output: (x, out, residual)."""
    choices = getattr(weight, "_ways", None)
    if choices is not None:
        offered: dict[str, Callable[..., object]] = choices.offered(rows)
        return offered

    def bound(x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None) -> None:
        weight.bind(x, out, residual)()

    return {weight.kernel: bound}


def replayed(
    call: Callable[..., object], x: torch.Tensor, y: torch.Tensor, form: Any, bias: Any, k: int
) -> list[float]:
    """Errors of a captured call that is replayed with two other x."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with by_rule(), torch.cuda.graph(graph):
        call(x, y, y)
    errors = []
    for _ in range(2):
        other, side = torch.randn_like(x), torch.randn_like(y)
        x.copy_(other)
        y.copy_(side)
        graph.replay()
        torch.cuda.synchronize()
        errors.append(off(y, exact(form, other, bias) + side.cpu().double(), k))
    return errors


def off(y: torch.Tensor, wanted: torch.Tensor, k: int) -> float:
    """The largest distance, in parts of |y| + sqrt(k)."""
    y = y.cpu().double()
    assert bool(y.isfinite().all())
    return float(((y - wanted).abs() / (wanted.abs() + k**0.5)).max())
