"""The kernel "torch-int-mm": `torch._int_mm` multiplies. The fallback where there is no compiler,
and for fp16.

On the CPU, and on a GPU without Triton, torch rounds x and scales the sums, in several passes; on a
GPU gpu_rows.py does, in one pass each. NOT YET RUN ON A GPU.
"""

import importlib
from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import pad

from kernels.linear_w8a8.codes import W8A8, quantize_rows

# What cuBLAS asks of an int8 product (torch 2.11's Blas.cpp): more than 16 rows, the other sides
# multiples of 8, the second side column-major. 32 rows, because later versions of torch make fewer
# into so many by a copy; K as gpu.py has it, whose codes are read too.
CUDA_ROWS, CUDA_MULTIPLE, CUDA_K_MULTIPLE = 32, 8, 16


def available() -> str | None:
    """None, or the sentence why this torch cannot do it."""
    if hasattr(torch, "_int_mm"):
        return None
    return f"needs torch._int_mm, which torch {torch.__version__} lacks"


def refuse(form: W8A8, dtype: torch.dtype) -> str | None:
    """None: it takes every form."""
    return None


def over(product: Any) -> "Product | None":
    """The same codes where they lie as this kernel wants them; see kernels.packed."""
    if product.n % CUDA_MULTIPLE or _gpu_rows(product.codes) is None:
        return None
    return Product(product, None, product.bias, product.codes, product.columns, product.width)


class Product:
    """See W8A8Weight: the codes of the columns that are not left out, row-major.

    `into` (kernels.choice.ways) is None where torch does all of it.
    """

    def __init__(
        self,
        form: Any,
        dtype: torch.dtype | None,
        bias: torch.Tensor | None,
        codes: torch.Tensor | None = None,
        columns: torch.Tensor | None = None,
        width: int = 0,
    ) -> None:
        """Of a W8A8; or of gpu.py's Product, with its `codes` of `width` of the columns."""
        self.n, self.k, self._bias = form.n, form.k, bias
        self._scale, self._x_scale, self._apart = form.scale, form.x_scale, form.apart
        if codes is None:
            columns = None if form.apart is None else form.kept_columns()
            codes = form.kept()
            width = codes.shape[1]
            if codes.is_cuda:
                codes = pad(codes, (0, -width % CUDA_K_MULTIPLE, 0, -form.n % CUDA_MULTIPLE))
        self._codes, self._columns, self._width = codes.contiguous(), columns, width
        self._rows = _gpu_rows(codes)
        self.into = None if self._rows is None else self._into

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        rows, dtype = len(x), x.dtype
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
        return y.to(dtype)

    def _into(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self._columns is not None:
            x = x.index_select(1, self._columns)
        rows: Any = self._rows
        codes, scale = rows.round_rows(x, self._codes.shape[1], self._x_scale, CUDA_ROWS)
        sums = torch._int_mm(codes, self._codes.t())
        rows.finish(out, sums[None], 1, self._scale, scale, self._bias, residual)
        return out

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


def _gpu_rows(codes: torch.Tensor) -> ModuleType | None:
    """The Triton side of the work on a GPU, where Triton is."""
    if not codes.is_cuda:
        return None
    try:
        return importlib.import_module("kernels.linear_w8a8.gpu_rows")
    except ImportError:
        return None
