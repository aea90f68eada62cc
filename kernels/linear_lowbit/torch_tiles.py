"""The kernel "torch": codes packed along k, dequantized a tile of rows at a time and multiplied.

Runs wherever torch does, with any dtype, group size and kind. Slow: it is the fallback where there
is no compiler.
"""

import torch

from kernels.linear_lowbit import planes
from kernels.linear_lowbit.codes import DOUBLE_ROWS, DoubleScale, LowBit, dequantized, levels

# Numbers in one dequantized tile: 4 MiB of fp32.
TILE = 1 << 20


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None: it takes every form."""
    return None


class Product:
    """See LowBitWeight: packed planes, scales in their own format, zeros as bytes or floats."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self.dtype, self.bias = form.n, form.k, dtype, bias
        self._bits, self._group, self._kind = form.bits, form.group_size, form.kind
        self._scale_format, self._double = form.scale_format, form.double
        self._planes = planes.pack(form.codes, form.bits)
        kept = torch.float16 if form.scale_format == "fp16" else torch.float32
        self._scale = form.scale.to(kept) if form.double is None else form.double.codes
        self._zero = form.zero
        if form.zero is not None and bool((form.zero == form.zero.to(torch.uint8)).all()):
            self._zero = form.zero.to(torch.uint8)
        step = DOUBLE_ROWS
        self._rows = max(step, TILE // form.k // step * step)
        table = levels(form.kind)
        self._table = None if table is None else table.to(form.codes.device)
        self._centre = 2 ** (form.bits - 1) if form.kind == "int" else 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        y = x.new_empty(x.shape[0], self.n)
        for begin in range(0, self.n, self._rows):
            end = min(begin + self._rows, self.n)
            y[:, begin:end] = x @ self._tile(begin, end).to(self.dtype).T
        return y if self.bias is None else y.add_(self.bias)

    def undo(self) -> LowBit:
        """The canonical form."""
        return self._form(0, self.n)

    def tensors(self) -> list[torch.Tensor]:
        """Planes, scales and zeros."""
        tensors = [*self._planes, self._scale]
        if self._double is not None:
            tensors += [self._double.step, self._double.low]
        return tensors if self._zero is None else [*tensors, self._zero]

    def _tile(self, begin: int, end: int) -> torch.Tensor:
        """The rows [begin, end), fp32; without a LowBit's checks, for which a GPU would wait."""
        codes, scale, zero, _ = self._parts(begin, end)
        zeros = torch.full_like(scale, self._centre) if zero is None else zero
        return dequantized(codes, self._table, scale, zeros, self._group)

    def _form(self, begin: int, end: int) -> LowBit:
        codes, scale, zero, double = self._parts(begin, end)
        return LowBit(
            codes, scale, zero, self._bits, self._group, self._kind, self._scale_format, double
        )

    def _parts(
        self, begin: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, DoubleScale | None]:
        codes = planes.unpack([plane[begin:end] for plane in self._planes], self._bits, self.k)
        double, scale = None, self._scale[begin:end].float()
        if self._double is not None:
            first, last = begin // DOUBLE_ROWS, -(-end // DOUBLE_ROWS)
            double = DoubleScale(
                self._double.codes[begin:end],
                self._double.step[first:last],
                self._double.low[first:last],
            )
            scale = double.values()
        zero = None if self._zero is None else self._zero[begin:end].float()
        return codes, scale, zero, double
