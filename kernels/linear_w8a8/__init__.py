"""Linear layer with int8 weights and int8 inputs: y = (q . w) * s_x * s_w + bias, the sum exact.

Owns: W8A8Weight (a matrix laid out for one kernel), the checks and the choice of the kernel. x and
y are floats; x is rounded to int8 inside the kernel, each row by its largest value ("w8a8") or all
by one scale from calibration ("w8a8-static"). Kernels: "cpp" (CPU, bf16 and fp32), "triton" (GPU)
and "torch-int-mm" (`torch._int_mm`, any device). A row of x with NaN or infinity gives NaN.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch

from kernels import registry
from kernels.calls import count
from kernels.linear_w8a8.codes import W8A8, quantize

__all__ = ["OP", "W8A8", "W8A8Weight", "quantize"]

OP = "linear_w8a8"
DTYPES = (torch.bfloat16, torch.float32, torch.float16)


class W8A8Weight:
    """A W8A8 matrix [n, k] in the layout of one kernel (see kernels.weight.KernelWeight).

    `dtype` is that of x, y and the bias. A kernel's module has `refuse(form, dtype)`, a sentence or
    None, and a class `Product(form, dtype, bias)`: called with x [M, k], contiguous, it gives
    y [M, n]; `undo()` gives the form back, `tensors()` what it keeps; with `bind(x, out, residual)`
    it becomes part of a bound step. Raises KernelUnavailable when no kernel, or not the named one,
    takes the form here.
    """

    __slots__ = ("_device", "_product", "bias", "dtype", "format", "k", "kernel", "n")

    def __init__(
        self,
        form: W8A8,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype} is not one of bf16, fp32 and fp16.")
        if bias is not None and (bias.shape != (form.n,) or bias.dtype is not dtype):
            raise ValueError(
                f"bias must be [{form.n}] of {dtype}, not {list(bias.shape)} of {bias.dtype}."
            )
        self.n, self.k, self.dtype, self.format = form.n, form.k, dtype, form.format
        self.bias = None if bias is None else bias.detach().contiguous()
        self._device = form.codes.device
        self.kernel = _choose(form, dtype, kernel)
        self._product: Any = _module(self.kernel).Product(form, dtype, self.bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> y [..., n]; no gradients. Raises ValueError with a sentence."""
        if x.dtype is not self.dtype or x.dim() == 0 or x.shape[-1] != self.k:
            raise ValueError(
                f"x must be [..., {self.k}] of {self.dtype}, not {list(x.shape)} of {x.dtype}."
            )
        if x.device != self._device:
            raise ValueError(f"x is on {x.device}, the packed weight on {self._device}.")
        if x.numel() == 0:
            return x.new_zeros((*x.shape[:-1], self.n))
        rows = x.detach() if x.requires_grad else x
        rows = rows.reshape(-1, self.k).contiguous()
        count(OP, self.kernel)
        y: torch.Tensor = self._product(rows)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.n)

    def bind(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None = None,
        apart: torch.Tensor | None = None,
    ) -> Callable[[], object]:
        """See KernelWeight.bind; a kernels.program.BoundCall where the kernel has one.

        `apart` [M, o], where given, is filled with the columns of x that the form leaves out.
        """
        sides = {"x": (x, self.k), "out": (out, self.n), "residual": (residual, self.n)}
        rows = x.numel() // self.k
        for name, (side, width) in sides.items():
            if side is not None and (
                side.dtype is not self.dtype
                or side.shape != (rows, width)
                or side.device != self._device
                or not side.is_contiguous()
            ):
                raise ValueError(
                    f"{name} must be contiguous [{rows}, {width}] of {self.dtype} on "
                    f"{self._device}, not {list(side.shape)} of {side.dtype} on {side.device}."
                )
        bind = getattr(self._product, "bind", None)
        if bind is not None:
            bound: Callable[[], object] = bind(x, out, residual, apart)
            return bound

        columns = None if apart is None else self.form().apart

        def step() -> None:
            if apart is not None and columns is not None:
                torch.index_select(x, 1, columns, out=apart)
            y = self(x)
            torch.add(residual, y, out=out) if residual is not None else out.copy_(y)

        return step

    def form(self) -> W8A8:
        """The canonical form, exactly the one that was laid out."""
        found: W8A8 = self._product.undo()
        return found

    def dequantize(self) -> torch.Tensor:
        """The weight that the codes stand for, fp32 [n, k]."""
        return self.form().dequantize()

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales and the bias, as they lie in memory."""
        kept: list[torch.Tensor] = self._product.tensors()
        return kept if self.bias is None else [*kept, self.bias]


def _choose(form: W8A8, dtype: torch.dtype, wanted: str | None) -> str:
    """The first kernel that runs here and takes the form."""
    device = form.codes.device
    wanted = registry.named(OP, wanted)
    if wanted is not None:
        name = registry.select(OP, device, "int8", wanted).name
        reason = _module(name).refuse(form, dtype)
        if reason is not None:
            raise registry.KernelUnavailable(f"{OP}={name} {reason}.")
        return name
    reasons = []
    for info, reason in registry.kernels_available(device):
        # A kernel that runs here on request only is not chosen by itself.
        if info.op != OP or device.type not in info.devices:
            continue
        reason = reason or _module(info.name).refuse(form, dtype)
        if reason is None:
            return info.name
        reasons.append(f"{info.name} {reason}")
    raise registry.KernelUnavailable(
        f"No kernel of {OP} takes {form.format} with {dtype} on {device}: {'; '.join(reasons)}."
    )


def _module(kernel: str) -> Any:
    return importlib.import_module(
        next(info.module for info in registry.KERNELS if info.op == OP and info.name == kernel)
    )
