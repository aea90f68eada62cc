"""The kernel "torch": rows rounded to E4M3, the weight widened a tile at a time. Any device; slow.

It is what runs where there are no FP8 units, and gives what they would.
"""

import torch

from kernels.linear_fp8.codes import quantize_rows
from kernels.linear_lowbit.codes import LowBit

# Numbers in one widened tile: 4 MiB of fp32.
TILE = 1 << 20


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None: it takes every form."""
    return None


class Product:
    """See Fp8Weight: the codes as they are."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self._codes = form.codes.view(torch.float8_e4m3fn)
        self._scale = form.scale.half() if form.scale_format == "fp16" else form.scale
        self._bias, self._rows = bias, max(1, TILE // form.k)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        codes, scale = quantize_rows(x)
        rows, n = codes.float(), len(self._codes)
        y = torch.empty(len(x), n, dtype=torch.float32, device=x.device)
        for begin in range(0, n, self._rows):
            tile = self._codes[begin : begin + self._rows].float()
            y[:, begin : begin + self._rows] = rows @ tile.T
        y *= scale[:, None] * self._scale.float().T
        if self._bias is not None:
            y += self._bias
        return y.to(x.dtype)

    def undo(self) -> LowBit:
        """The canonical form."""
        kept = "fp16" if self._scale.dtype is torch.float16 else "fp32"
        codes = self._codes.view(torch.uint8)
        return LowBit(
            codes, self._scale.float(), None, 8, codes.shape[1], "e4m3", scale_format=kept
        )

    def tensors(self) -> list[torch.Tensor]:
        """Codes and scales."""
        return [self._codes, self._scale]
