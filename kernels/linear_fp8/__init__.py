"""Linear layer with FP8 weights and FP8 inputs: y = (q . w) * s_x * s_w + bias, both in E4M3.

Owns: Fp8Weight (a matrix laid out for one kernel), the checks and the choice of the kernel. x and
y are floats; x is rounded inside the kernel, each row by its largest value. A row of x with NaN or
infinity gives NaN. Kernels: "triton" (GPUs with FP8 units) and "torch" (any device; the same
numbers, slowly). Weight-only FP8 belongs to kernels.linear_lowbit.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch

from kernels import registry
from kernels.calls import count
from kernels.linear_lowbit.codes import LowBit, quantize

__all__ = ["OP", "Fp8Weight", "LowBit", "quantize"]

OP = "linear_fp8"
DTYPES = (torch.bfloat16, torch.float32, torch.float16)
FORMAT = "fp8-fp8"
# The first code, without its sign, that is no number.
NAN = 0x7F


class Fp8Weight:
    """A matrix [n, k] of E4M3 codes with a scale a row (see kernels.weight.KernelWeight).

    The form is LowBit of kind "e4m3" over whole rows. Raises ValueError for any other form,
    KernelUnavailable when no kernel, or not the named one, runs here.
    """

    __slots__ = ("_device", "_product", "bias", "dtype", "format", "k", "kernel", "n")

    def __init__(
        self,
        form: LowBit,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> None:
        if form.kind != "e4m3" or form.groups != 1 or form.zero is not None or form.double:
            raise ValueError(
                f"linear_fp8 takes e4m3 codes with one scale a row, not {form.format}."
            )
        if bool(((form.codes & NAN) == NAN).any()):
            raise ValueError("a code is not a number.")
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype} is not one of bf16, fp32 and fp16.")
        if bias is not None and (bias.shape != (form.n,) or bias.dtype is not dtype):
            raise ValueError(
                f"bias must be [{form.n}] of {dtype}, not {list(bias.shape)} of {bias.dtype}."
            )
        self.n, self.k, self.dtype, self.format = form.n, form.k, dtype, FORMAT
        self.bias = None if bias is None else bias.detach().contiguous()
        self._device = form.codes.device
        info = registry.select(OP, self._device, "e4m3", registry.named(OP, kernel))
        self.kernel = info.name
        self._product: Any = importlib.import_module(info.module).Product(form, dtype, self.bias)

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
        rows = x.detach().reshape(-1, self.k).contiguous()
        count(OP, self.kernel)
        y: torch.Tensor = self._product(rows)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.n)

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """See KernelWeight.bind."""
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
        """Codes, scales and the bias, as they lie in memory."""
        kept: list[torch.Tensor] = self._product.tensors()
        return kept if self.bias is None else [*kept, self.bias]
