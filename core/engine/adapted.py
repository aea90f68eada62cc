"""Owns a low-rank adapter beside a matrix in whatever kernel's layout: y = W x + B (A x).

The adapter is never merged: W stays as it is stored, and both products run. How A and B are found
is a technique's business.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels import linear_dense
from kernels.program import BoundCall, BoundCalls
from kernels.weight import KernelWeight


class Adapted:
    """`base` [n, k] with an adapter of rank r (a kernels.weight.KernelWeight).

    Hu et al. 2021, W0 + (alpha / r) B A with the factor contained in `b` already. `a` [r, k] and
    `b` [n, r] have the base's dtype. Raises ValueError when they do not fit.
    """

    def __init__(self, base: KernelWeight, a: Tensor, b: Tensor) -> None:
        rank = a.shape[0]
        if a.dim() != 2 or a.shape[1] != base.k or b.shape != (base.n, rank) or not rank:
            raise ValueError(
                f"a and b must be [r, {base.k}] and [{base.n}, r], "
                f"not {list(a.shape)} and {list(b.shape)}."
            )
        if a.dtype is not base.dtype or b.dtype is not base.dtype:
            raise ValueError(f"a and b must be {base.dtype}, not {a.dtype} and {b.dtype}.")
        self.base = base
        self.a, self.b = linear_dense.prepare(a), linear_dense.prepare(b)
        self.n, self.k, self.rank = base.n, base.k, rank
        self.dtype, self.bias = base.dtype, base.bias
        self.format = f"{base.format}+r{rank}"
        self.kernel = base.kernel

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., k] -> y [..., n]; the base's result is rounded before the adapter's is added."""
        y: Tensor = self.base(x).contiguous()
        return self.b(self.a(x), out=y, residual=y) if y.numel() else y

    def bind(self, x: Tensor, out: Tensor, residual: Tensor | None = None) -> Callable[[], object]:
        """See KernelWeight.bind; BoundCalls where all three products are bound."""
        inner = torch.empty(x.shape[0], self.rank, dtype=self.dtype, device=x.device)
        steps = [
            self.base.bind(x, out, residual),
            self.a.bind(x, inner),
            self.b.bind(inner, out, residual=out),
        ]
        bound: list[BoundCall] = []
        for step in steps:
            if isinstance(step, BoundCall):
                bound.append(step)
            elif isinstance(step, BoundCalls):
                bound += step
            else:
                return lambda: [step() for step in steps]
        return BoundCalls(bound)

    def dequantize(self) -> Tensor:
        """The sum of both, fp32 [n, k]."""
        weight: Tensor = self.base.dequantize()
        return weight + self.b.weight.float() @ self.a.weight.float()

    def tensors(self) -> list[Tensor]:
        """The base's, then a and b."""
        return [*self.base.tensors(), self.a.weight, self.b.weight]
