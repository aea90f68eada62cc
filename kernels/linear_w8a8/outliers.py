"""A matrix whose products with a few columns of x stay in floats, the others in int8: LLM.int8().

Owns OutlierWeight, which puts linear_w8a8 and linear_dense together (Dettmers et al. 2022, equation
8). Which columns are outliers is a technique's business.
"""

from collections.abc import Callable

import torch

from kernels.linear_dense import DenseWeight
from kernels.linear_w8a8 import W8A8Weight, quantize
from kernels.program import BoundCall, BoundCalls


class OutlierWeight:
    """y = x[:, rest] @ W8A8 + x[:, columns] @ dense + bias (see kernels.weight.KernelWeight).

    The columns left to floats neither widen the rows of x nor those of the weight. The two sums are
    added in `dtype`, as the paper's implementation does.
    """

    __slots__ = ("_columns", "bias", "columns", "dtype", "format", "k", "kernel", "n", "rest")

    def __init__(
        self,
        weight: torch.Tensor,
        columns: torch.Tensor,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> None:
        """`weight` floats [n, k]; `columns` int64 [o], ascending, fewer than k. Raises ValueError
        as `quantize` does; `kernel` is that of linear_w8a8.
        """
        rest = W8A8Weight(quantize(weight, None, columns.int()), bias, dtype, kernel)
        kept = DenseWeight(weight.detach()[:, columns].to(dtype).contiguous())
        self._take(rest, columns, kept)

    @classmethod
    def of_parts(cls, rest: W8A8Weight, kept: torch.Tensor) -> "OutlierWeight":
        """Put together again what `rest` and `kept`, the outlier columns [n, o], were: a file holds
        them apart. Raises ValueError when they do not fit.
        """
        apart = rest.form().apart
        if apart is None or kept.shape != (rest.n, len(apart)) or kept.dtype is not rest.dtype:
            raise ValueError(f"the columns must be {rest.dtype}, one for each that is left out.")
        made = cls.__new__(cls)
        made._take(rest, apart.long(), DenseWeight(kept))
        return made

    def _take(self, rest: W8A8Weight, columns: torch.Tensor, kept: DenseWeight) -> None:
        self.rest, self.columns, self._columns = rest, columns, kept
        self.n, self.k, self.dtype, self.bias = rest.n, rest.k, rest.dtype, rest.bias
        self.format = "llm-int8"
        self.kernel = f"{rest.kernel}+{kept.kernel}"

    @property
    def kept(self) -> torch.Tensor:
        """The columns that stay in floats, [n, o] of `dtype`."""
        weight: torch.Tensor = self._columns.weight
        return weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """y [..., n] of x [..., k]; no gradients. Raises ValueError with a sentence."""
        y = self.rest(x)
        if x.numel() == 0:
            return y
        return self._columns(x.detach().index_select(-1, self.columns), y, y)

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """See KernelWeight.bind; a kernels.program.BoundCalls where both kernels have one."""
        apart = x.new_zeros(x.shape[0], len(self.columns))
        rest = self.rest.bind(x, out, residual, apart)
        columns = self._columns.bind(apart, out, out)
        if isinstance(rest, BoundCall) and isinstance(columns, BoundCall):
            return BoundCalls((rest, columns))

        def step() -> None:
            rest()
            columns()

        return step

    def dequantize(self) -> torch.Tensor:
        """The matrix that the two kernels multiply with, fp32 [n, k]."""
        return self.rest.dequantize().index_copy_(1, self.columns, self._columns.weight.float())

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, columns and the bias, as they lie in memory."""
        return [*self.rest.tensors(), *self._columns.tensors(), self.columns]
