"""A matrix whose products with a few columns of x stay in floats, the others in int8: LLM.int8().

Owns OutlierWeight, which puts linear_w8a8 and linear_dense together (Dettmers et al. 2022, equation
8). Which columns are outliers is a technique's business.
"""

from collections.abc import Callable

import torch

from kernels.linear_dense import DenseWeight
from kernels.linear_w8a8 import W8A8, W8A8Weight, quantize
from kernels.program import BoundCall, BoundCalls


class OutlierWeight:
    """y = x[:, rest] @ W8A8 + x[:, columns] @ dense + bias (see kernels.weight.KernelWeight).

    The columns left to floats neither widen the rows of x nor those of the weight. The two sums are
    added in `dtype`, as the paper's implementation does.
    """

    __slots__ = ("bias", "columns", "dense", "dtype", "format", "k", "kernel", "n", "rest")

    def __init__(
        self,
        form: W8A8,
        dense: torch.Tensor,
        bias: torch.Tensor | None = None,
        kernel: str | None = None,
    ) -> None:
        """`form` with its columns apart, `dense` [n, o] those columns in the dtype of x and y.

        `kernel` is that of linear_w8a8. Raises ValueError when the parts do not fit.
        """
        if form.apart is None or dense.shape != (form.n, len(form.apart)):
            raise ValueError(
                f"dense {list(dense.shape)} must have {form.n} rows and the form's columns apart."
            )
        self.rest = W8A8Weight(form, bias, dense.dtype, kernel)
        self.columns = form.apart.long()
        self.dense = DenseWeight(dense)
        self.n, self.k, self.dtype, self.bias = form.n, form.k, dense.dtype, self.rest.bias
        self.format = "llm-int8"
        self.kernel = f"{self.rest.kernel}+{self.dense.kernel}"

    @classmethod
    def of(
        cls,
        weight: torch.Tensor,
        columns: torch.Tensor,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> "OutlierWeight":
        """Of a float weight [n, k] and ascending int64 columns [o], 0 < o < k; the others are
        rounded to nearest. Raises ValueError as `quantize` does.
        """
        form = quantize(weight, None, columns.int())
        return cls(form, weight.detach()[:, columns].to(dtype).contiguous(), bias, kernel)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """y [..., n] of x [..., k]; no gradients. Raises ValueError with a sentence."""
        y = self.rest(x)
        if x.numel() == 0:
            return y
        return self.dense(x.detach().index_select(-1, self.columns), y, y)

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """See KernelWeight.bind; a kernels.program.BoundCalls where both kernels have one."""
        apart = x.new_zeros(x.shape[0], len(self.columns))
        rest = self.rest.bind(x, out, residual, apart)
        columns = self.dense.bind(apart, out, out)
        if isinstance(rest, BoundCall) and isinstance(columns, BoundCall):
            return BoundCalls((rest, columns))

        def step() -> None:
            rest()
            columns()

        return step

    def dequantize(self) -> torch.Tensor:
        """The matrix that the two kernels multiply with, fp32 [n, k]."""
        return self.rest.dequantize().index_copy_(1, self.columns, self.dense.weight.float())

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, columns and the bias, as they lie in memory."""
        return [*self.rest.tensors(), *self.dense.tensors(), self.columns]
