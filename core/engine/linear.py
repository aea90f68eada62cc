"""Owns one weight matrix in one storage format, and calling the kernel of that format.

It does not decide which format is right and rounds to nearest only; a technique that chooses better
roundings packs its own codes and hands them to `from_packed`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from core.errors import BadInput
from kernels import linear_dense, linear_w4, linear_w8
from kernels.linear_dense import DenseWeight
from kernels.linear_w4 import PackedW4
from kernels.linear_w8 import PackedW8

DENSE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INT4_GROUPS = {"int4-g32": 32, "int4-g64": 64, "int4-g128": 128}
FORMATS = (*DENSE, "int8", *INT4_GROUPS)
_DENSE_NAMES = {dtype: name for name, dtype in DENSE.items()}


class Linear:
    """y = x W^T + b with W [N, K] kept in `format`; x, y and b have the compute dtype `dtype`.

    Several source matrices that share their input are stored stacked as one [sum N, K] matrix.
    """

    def __init__(self, weight: Tensor | PackedW8 | PackedW4, bias: Tensor | None = None) -> None:
        """Take a dense [N, K] tensor or packed codes as they are, without a copy."""
        self.weight = weight
        self.bias = bias
        self._kernel: Callable[..., Tensor]
        if isinstance(weight, Tensor):
            self.out_features, self.in_features = weight.shape
            self.dtype = weight.dtype
            self.format = _DENSE_NAMES[weight.dtype]
            self._kernel = linear_dense.prepare(weight, bias)
            return
        self.out_features, self.in_features = weight.n, weight.k
        self.dtype = weight.dtype
        if isinstance(weight, PackedW8):
            self.format = "int8"
            self._kernel = partial(linear_w8.linear, packed=weight, bias=bias)
        else:
            self.format = f"int4-g{weight.group_size}"
            self._kernel = partial(linear_w4.linear, packed=weight, bias=bias)

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        format: str = "bf16",
        dtype: torch.dtype | None = None,
    ) -> Linear:
        """Round a float weight [N, K] to nearest in `format`.

        `dtype` is that of x and y for the integer formats (default: the weight's). Raises BadInput
        for an unknown format and ValueError for a weight that cannot be quantized.
        """
        dtype = DENSE.get(format, dtype or weight.dtype)
        bias = None if bias is None else bias.detach().to(dtype).contiguous()
        weight = weight.detach()
        if format in DENSE:
            return cls(weight.to(dtype).contiguous(), bias)
        if format == "int8":
            return cls(linear_w8.pack(weight, dtype), bias)
        if format in INT4_GROUPS:
            return cls(linear_w4.pack(weight, INT4_GROUPS[format], dtype), bias)
        raise BadInput(f"weight format {format!r} is not one of {', '.join(FORMATS)}.")

    @classmethod
    def from_packed(cls, packed: PackedW8 | PackedW4, bias: Tensor | None = None) -> Linear:
        """A matrix whose codes were chosen by the caller."""
        return cls(packed, bias)

    def to_format(self, format: str) -> Linear:
        """The same matrix in another format, rounded from what is stored now."""
        if format == self.format:
            return self
        return Linear.from_dense(self.dense(), self.bias, format, self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """y [..., N] of x [..., K] in the compute dtype."""
        return self._kernel(x)

    def prepare(
        self, x: Tensor, out: Tensor, residual: Tensor | None = None
    ) -> Callable[[], object]:
        """A call that writes residual + y of x [M, K] into out [M, N], for repeated steps.

        `out` may be `residual`. The tensors must stay where they are.
        """
        kernel = self._kernel
        if isinstance(kernel, DenseWeight):
            return kernel.bind(x, out, residual)
        if residual is None:
            return lambda: out.copy_(kernel(x))
        return lambda: torch.add(residual, kernel(x), out=out)

    def dense(self) -> Tensor:
        """The matrix that the kernel multiplies with, as float32 [N, K]."""
        if isinstance(self.weight, Tensor):
            return self.weight.float()
        return self.weight.dequantize()

    @property
    def nbytes(self) -> int:
        """Bytes resident for the weight, its scales and the bias."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Every tensor that this matrix keeps in memory."""
        bias = [] if self.bias is None else [self.bias]
        if isinstance(self.weight, Tensor):
            return [self.weight, *bias]
        if isinstance(self.weight, PackedW8):
            return [self.weight.codes, self.weight.scale, *bias]
        return [self.weight.packed, self.weight.scale_zero, *bias]
