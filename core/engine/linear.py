"""Owns one weight matrix in one storage format, and calling the kernel of that format.

It does not decide which format is right and quantizes by rounding to nearest only; techniques that
choose better roundings hand their result to `from_quantized`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput
from kernels import linear_dense

DENSE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS = (*DENSE, "int8", "int4-g32")


class Linear:
    """y = x W^T + b with W [N, K] kept in `format`; x and y have the compute dtype of the engine.

    Several source matrices that share their input are stored stacked as one [sum N, K] matrix.
    """

    def __init__(
        self, weight: Any, bias: Tensor | None, format: str, shape: tuple[int, int]
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.format = format
        self.out_features, self.in_features = shape
        self._kernel: Callable[..., Tensor] = linear_dense.prepare(weight, bias)

    @classmethod
    def from_dense(cls, weight: Tensor, bias: Tensor | None = None, format: str = "bf16") -> Linear:
        """Round a float [N, K] weight into `format`; a bias keeps its dtype.

        Raises BadInput for an unknown format, or a K that the format's groups do not divide.
        """
        shape = (weight.shape[0], weight.shape[1])
        if format in DENSE:
            return cls(weight.to(DENSE[format]).contiguous(), bias, format, shape)
        raise BadInput(f"weight format {format!r} is not one of {', '.join(FORMATS)}.")

    def to_format(self, format: str) -> Linear:
        """The same matrix in another format, rounded from what is stored now."""
        if format == self.format:
            return self
        return Linear.from_dense(self.dense(), self.bias, format)

    def __call__(self, x: Tensor) -> Tensor:
        """y [..., N] of x [..., K] in the dtype of x."""
        return self._kernel(x)

    def prepare(
        self, x: Tensor, out: Tensor, residual: Tensor | None = None
    ) -> Callable[[], object]:
        """A call that writes residual + y of x [M, K] into out [M, N], for repeated steps.

        `out` may be `residual`. The tensors must stay where they are.
        """
        if self.format in DENSE:
            return partial(self._kernel, x, out, residual)
        kernel = self._kernel
        if residual is None:
            return lambda: out.copy_(kernel(x))
        return lambda: torch.add(residual, kernel(x), out=out)

    def dense(self) -> Tensor:
        """The matrix that the kernel multiplies with, as float32 [N, K]."""
        weight: Tensor = self.weight
        return weight.float()

    @property
    def nbytes(self) -> int:
        """Bytes resident for the weight, its scales and the bias."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Every tensor that this matrix keeps in memory."""
        return [self.weight] + ([] if self.bias is None else [self.bias])
