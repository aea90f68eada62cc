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
    """See W8A8Weight: the codes as they are, row-major."""

    def __init__(self, form: W8A8, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self._form, self._bias, self.dtype = form, bias, dtype
        codes = form.codes
        if codes.is_cuda:
            codes = pad(codes, (0, -form.k % CUDA_MULTIPLE, 0, -form.n % CUDA_MULTIPLE))
        self._codes = codes.contiguous()
        self._form = W8A8(self._codes[: form.n, : form.k], form.scale, form.x_scale, form.apart)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        form, rows = self._form, len(x)
        if form.apart is not None:
            x = x.index_fill(1, form.apart.long(), 0)
        codes, scale = quantize_rows(x, form.x_scale)
        if codes.is_cuda:
            missing = self._codes.shape[1] - form.k
            codes = pad(codes, (0, missing, 0, max(0, CUDA_ROWS - rows)))
        sums = torch._int_mm(codes, self._codes.t())[:rows, : form.n]
        y = sums.float() * (scale[:, None] * form.scale)
        if self._bias is not None:
            y += self._bias
        return y.to(self.dtype)

    def undo(self) -> W8A8:
        """The canonical form."""
        return self._form

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales and columns left out."""
        found = [self._codes, self._form.scale]
        return found if self._form.apart is None else [*found, self._form.apart]
