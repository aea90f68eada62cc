"""The kernel "torch-scaled-mm": rows of x rounded by our kernel, multiplied by `torch._scaled_mm`.

NOT YET RUN ON A GPU. On compute capability 9.0 with CUDA 12.9 or later that is cuBLAS's FP8
product with a scale for each row of either side, else CUTLASS's. Its rules, from torch 2.11's
ScaledBlas.cpp: the first side row-major and the second column-major, K and N multiples of 16, fp32
scales [M, 1] and [1, N], a bias of the output's dtype and none with fp32. Sums move on to fp32 as
they grow (use_fast_accum is off), as in gpu.py.
"""

import torch
from torch.nn.functional import pad

from kernels.linear_fp8 import gpu
from kernels.linear_fp8.gpu_rows import round_rows
from kernels.linear_lowbit.codes import LowBit

MULTIPLE = 16
DTYPES = (torch.bfloat16, torch.float16)


def available() -> str | None:
    """None, or the sentence why this torch or GPU cannot do it."""
    if not hasattr(torch, "_scaled_mm"):
        return f"needs torch._scaled_mm, which torch {torch.__version__} lacks"
    return gpu.available()


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    return None if dtype in DTYPES else f"takes x in 16 bit, not {dtype}"


def over(product: object) -> "Product | None":
    """The same codes where they lie as this kernel wants them; see kernels.packed."""
    if not isinstance(product, gpu.Product) or product.n % MULTIPLE:
        return None
    return Product._of(product.n, product.k, product.codes, product.scale, product.bias)


class Product:
    """See Fp8Weight: E4M3 codes [n, k], both rounded up to 16, and fp32 scales."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        codes = pad(form.codes, (0, -form.k % MULTIPLE, 0, -form.n % MULTIPLE)).contiguous()
        scale = form.scale.half() if form.scale_format == "fp16" else form.scale
        self._keep(form.n, form.k, codes.view(torch.float8_e4m3fn), scale, bias)

    @classmethod
    def _of(
        cls, n: int, k: int, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
    ) -> "Product":
        product = cls.__new__(cls)
        product._keep(n, k, codes, scale, bias)
        return product

    def _keep(
        self, n: int, k: int, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        more = codes.shape[0] - n
        self._n, self._k, self._codes, self._scale = n, k, codes, scale
        self._scale_row = pad(scale.float().flatten(), (0, more))[None, :]
        self._bias = bias if bias is None or not more else pad(bias, (0, more))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        return self.into(x, x.new_empty(len(x), self._n))

    def into(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See kernels.choice.ways."""
        codes, scale = round_rows(x, self._codes.shape[1])
        direct = out if residual is None and self._codes.shape[0] == self._n else None
        y = torch._scaled_mm(
            codes,
            self._codes.t(),
            scale_a=scale[:, None],
            scale_b=self._scale_row,
            bias=self._bias,
            out_dtype=out.dtype,
            **({} if direct is None else {"out": direct}),
        )
        if direct is not None:
            return out
        y = y[:, : self._n]
        return out.copy_(y) if residual is None else torch.add(residual, y, out=out)

    def undo(self) -> LowBit:
        """The canonical form."""
        kept = "fp16" if self._scale.dtype is torch.float16 else "fp32"
        codes = self._codes.view(torch.uint8)[: self._n, : self._k].contiguous()
        return LowBit(codes, self._scale.float(), None, 8, self._k, "e4m3", scale_format=kept)

    def tensors(self) -> list[torch.Tensor]:
        """Codes, and scales twice: as they came and as a row in fp32."""
        return [self._codes, self._scale, self._scale_row]
