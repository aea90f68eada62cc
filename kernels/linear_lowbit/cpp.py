"""The kernel "cpp": x on the CPU, codes in the layout of cpu.cpp (layout.py, cpu.py)."""

from collections.abc import Callable

import torch

from kernels.linear_lowbit import cpu
from kernels.linear_lowbit.codes import LowBit

available = cpu.available


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    if form.group_size >= form.k or form.group_size == 16 or form.group_size % 32 == 0:
        return None
    return f"takes groups of 16, multiples of 32 or whole rows, not {form.group_size}"


class Product:
    """See LowBitWeight."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self._bias = form.n, bias
        # The tiles that torch multiplies are bf16.
        self._most = cpu.few_rows() if dtype is torch.bfloat16 else float("inf")
        self._packed = cpu.lay_out(form)
        self._product = cpu.Product(self._packed, bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        rows = x.shape[0]
        if rows > self._most:
            return cpu.matmul_many(x, self._packed, self._bias)
        out = x.new_empty(rows, self.n)
        self._product.run(x, out, rows)
        return out

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object] | None:
        """A BoundCall for few rows, None for many."""
        if x.shape[0] > self._most:
            return None
        return self._product.bind(x, out, x.shape[0], residual)

    def undo(self) -> LowBit:
        """The canonical form."""
        return cpu.undo(self._packed)

    def tensors(self) -> list[torch.Tensor]:
        """What the layout keeps."""
        return list(self._packed.tensors())
