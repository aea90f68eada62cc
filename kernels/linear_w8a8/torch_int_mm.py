"""The kernel "torch-int-mm": torch quantizes x and `torch._int_mm` multiplies. The fallback where
there is no compiler, and for fp16.
"""

import torch
from torch.nn.functional import pad

from kernels.linear_w8a8.codes import W8A8, quantize_rows

# What cuBLAS asks of an int8 product: more than 16 rows, the other sides multiples of 8.
CUDA_ROWS, CUDA_MULTIPLE = 17, 8


def available() -> str | None:
    """None, or the sentence why this torch cannot do it."""
    if hasattr(torch, "_int_mm"):
        return None
    return f"needs torch._int_mm, which torch {torch.__version__} lacks"


def refuse(form: W8A8, dtype: torch.dtype) -> str | None:
    """None: it takes every form."""
    return None


class Product:
    """See W8A8Weight: the codes of the columns that are not left out, row-major."""

    def __init__(self, form: W8A8, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self.dtype, self._bias = form.n, form.k, dtype, bias
        self._scale, self._x_scale, self._apart = form.scale, form.x_scale, form.apart
        self._columns = None if form.apart is None else form.kept_columns()
        codes = form.kept()
        self._width = codes.shape[1]
        if codes.is_cuda:
            codes = pad(codes, (0, -self._width % CUDA_MULTIPLE, 0, -form.n % CUDA_MULTIPLE))
        self._codes = codes.contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        rows = len(x)
        if self._columns is not None:
            x = x.index_select(1, self._columns)
        codes, scale = quantize_rows(x, self._x_scale)
        if codes.is_cuda:
            missing = self._codes.shape[1] - self._width
            codes = pad(codes, (0, missing, 0, max(0, CUDA_ROWS - rows)))
        sums = torch._int_mm(codes, self._codes.t())[:rows, : self.n]
        y = sums.float() * (scale[:, None] * self._scale)
        if self._bias is not None:
            y += self._bias
        return y.to(self.dtype)

    def undo(self) -> W8A8:
        """The canonical form."""
        codes = self._codes[: self.n, : self._width]
        return W8A8.of_kept(codes, self._scale, self._x_scale, self._apart, self.k)

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, the columns left out and the others."""
        tensors = [self._codes, self._scale]
        if self._apart is not None and self._columns is not None:
            tensors += [self._apart, self._columns]
        return tensors
