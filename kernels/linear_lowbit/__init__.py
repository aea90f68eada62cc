"""Weight-only linear layer on codes of 1 to 8 bit: y = x @ dequantized(codes).T + bias.

Owns: LowBitWeight (a matrix laid out for one kernel), the checks and the choice of the kernel. The
packed codes themselves are multiplied; no float copy of the whole weight is ever made by a call.
The canonical form, for files and calibrated methods, is LowBit (codes.py). Kernels: "cpp" (bf16 on
the CPU), "torch-int4pack" and "torch-int8pack" (torch's own), "triton" (GPU), "torch" (any device,
tile by tile; slow).
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch

from kernels import registry
from kernels.calls import count
from kernels.linear_lowbit.codes import LowBit, quantize

__all__ = ["OP", "LowBit", "LowBitWeight", "quantize"]

OP = "linear_lowbit"
DTYPES = (torch.bfloat16, torch.float32, torch.float16)


class LowBitWeight:
    """A LowBit matrix [n, k] in the layout of one kernel (see kernels.weight.KernelWeight).

    `dtype` is that of x, y and the bias. A kernel's module has `refuse(form, dtype)`, a sentence or
    None, and a class `Product(form, dtype, bias)`: called with x [M, k], contiguous, it gives
    y [M, n]; `undo()` gives the form back, `tensors()` what it keeps; with `bind(x, out, residual)`
    it becomes part of a bound step. Raises KernelUnavailable when no kernel, or not the named one,
    takes the form here.
    """

    __slots__ = ("_product", "bias", "dtype", "format", "k", "kernel", "n")

    def __init__(
        self,
        form: LowBit,
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
        self.kernel = _choose(form, dtype, kernel)
        self._product: Any = _module(self.kernel).Product(form, dtype, self.bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> y [..., n]; no gradients. Raises ValueError with a sentence."""
        if x.dtype is not self.dtype or x.dim() == 0 or x.shape[-1] != self.k:
            raise ValueError(
                f"x must be [..., {self.k}] of {self.dtype}, not {list(x.shape)} of {x.dtype}."
            )
        held = self.tensors()[0].device
        if x.device != held:
            raise ValueError(f"x is on {x.device}, the packed weight on {held}.")
        if x.numel() == 0:
            return x.new_zeros((*x.shape[:-1], self.n))
        rows = x.detach() if x.requires_grad else x
        rows = rows.reshape(-1, self.k).contiguous()
        count(OP, self.kernel)
        y: torch.Tensor = self._product(rows)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.n)

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """See KernelWeight.bind; a kernels.program.BoundCall where the kernel has one."""
        bind = getattr(self._product, "bind", None)
        bound: Callable[[], object] | None = bind(x, out, residual) if bind is not None else None
        if bound is not None:
            return bound
        if residual is None:
            return lambda: out.copy_(self(x))
        return lambda: torch.add(residual, self(x), out=out)

    def form(self) -> LowBit:
        """The canonical form, exactly the one that was laid out."""
        found: LowBit = self._product.undo()
        return found

    def dequantize(self) -> torch.Tensor:
        """The weight that the codes stand for, fp32 [n, k]."""
        return self.form().dequantize()

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, zeros and the bias, as they lie in memory."""
        kept: list[torch.Tensor] = self._product.tensors()
        return kept if self.bias is None else [*kept, self.bias]


def _choose(form: LowBit, dtype: torch.dtype, wanted: str | None) -> str:
    """The first kernel that runs here and takes the form."""
    device, format_ = form.codes.device, form.format.partition("-")[0]
    wanted = registry.named(OP, wanted)
    if wanted is not None:
        name = registry.select(OP, device, format_, wanted).name
        reason = _module(name).refuse(form, dtype)
        if reason is not None:
            raise registry.KernelUnavailable(f"{OP}={name} {reason}.")
        return name
    reasons = []
    for info, reason in registry.kernels_available(device):
        # A kernel that runs here on request only is not chosen by itself.
        if info.op != OP or format_ not in info.formats or device.type not in info.devices:
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
