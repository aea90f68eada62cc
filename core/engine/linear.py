"""Owns one weight matrix of the engine, in whatever kernel's layout, and calling it.

It does not decide which format is right and rounds to nearest only; a technique that chooses better
roundings makes a kernel's weight of its own and hands it to `from_kernel`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from core.errors import BadInput
from kernels import linear_dense
from kernels.dtypes import FLOATS, as_torch
from kernels.linear_lowbit import LowBitWeight, quantize
from kernels.linear_lowbit.codes import bits_of
from kernels.weight import KernelWeight

DENSE = {name: as_torch(name) for name in FLOATS}
NAMES = {dtype: name for name, dtype in DENSE.items()}
# The formats offered by name; `format_of` reads any width and group.
FORMATS = (*DENSE, "int8", "int4-g32", "int4-g64", "int4-g128", "int3-g64", "int2-g32", "nf4-g64")
_PACKED = re.compile(
    r"(?:int(?P<bits>[1-8])|(?P<kind>nf4|fp4|ternary|binary|e4m3|e5m2))(?:-g(?P<group>\d{1,6}))?"
)
_WHOLE_ROW = 1 << 30


def name_of(dtype: torch.dtype) -> str:
    """fp32, bf16 or fp16; another dtype as torch calls it."""
    return NAMES.get(dtype, str(dtype).removeprefix("torch."))


class Linear:
    """y = x W^T + b with W [N, K] kept in `format`; x, y and b have the compute dtype `dtype`.

    Several source matrices that share their input are stored stacked as one [sum N, K] matrix.
    `weight` is a dense tensor or the kernel's own object; `kernel_weight` is always the latter.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take a dense [N, K] tensor as it is, without a copy."""
        self._take(linear_dense.prepare(weight, bias), weight, bias)

    def _take(
        self, kernel: KernelWeight, weight: Tensor | KernelWeight, bias: Tensor | None
    ) -> None:
        self.kernel_weight = kernel
        self.weight = weight
        self.bias = bias
        self.out_features, self.in_features = kernel.n, kernel.k
        self.dtype: torch.dtype = kernel.dtype
        self.format = kernel.format

    @classmethod
    def from_kernel(cls, weight: KernelWeight) -> Linear:
        """A matrix that a technique laid out."""
        linear = cls.__new__(cls)
        linear._take(weight, weight, weight.bias)
        return linear

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        format: str = "bf16",
        dtype: torch.dtype | None = None,
    ) -> Linear:
        """Round a float weight [N, K] to nearest in `format` (`bf16`, `int4-g32`, `nf4-g64`, ...).

        Integers in groups are affine, per row symmetric. `dtype` is that of x and y for the packed
        formats (default: the weight's). Raises BadInput for an unknown format and ValueError for a
        weight that cannot be quantized.
        """
        dtype = DENSE.get(format, dtype or weight.dtype)
        bias = None if bias is None else bias.detach().to(dtype).contiguous()
        weight = weight.detach()
        if format in DENSE:
            return cls(weight.to(dtype).contiguous(), bias)
        match = _PACKED.fullmatch(format)
        if match is None or match["group"] == "0":
            raise BadInput(
                f"weight format {format!r} is neither one of {', '.join(DENSE)} nor written as "
                "int4-g32 (1 to 8 bits), nf4-g64, fp4, ternary, binary, e4m3 or e5m2."
            )
        kind = match["kind"] or "int"
        bits = int(match["bits"] or bits_of(kind) or 0)
        group = int(match["group"] or _WHOLE_ROW)
        form = quantize(weight, bits, group, kind, symmetric=match["group"] is None)
        return cls.from_kernel(LowBitWeight(form, bias, dtype))

    def to_format(self, format: str) -> Linear:
        """The same matrix in another format, rounded from what is stored now."""
        if format == self.format:
            return self
        return Linear.from_dense(self.dense(), self.bias, format, self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """y [..., N] of x [..., K] in the compute dtype."""
        y: Tensor = self.kernel_weight(x)
        return y

    def prepare(
        self, x: Tensor, out: Tensor, residual: Tensor | None = None
    ) -> Callable[[], object]:
        """A call that writes residual + y of x [M, K] into out [M, N], for repeated steps.

        `out` may be `residual`. The tensors must stay where they are.
        """
        return self.kernel_weight.bind(x, out, residual)

    def dense(self) -> Tensor:
        """The matrix that the kernel multiplies with, as float32 [N, K]."""
        weight: Tensor = self.kernel_weight.dequantize()
        return weight

    @property
    def nbytes(self) -> int:
        """Bytes resident for the weight, its scales and the bias."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Every tensor that this matrix keeps in memory."""
        return self.kernel_weight.tensors()
