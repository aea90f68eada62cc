"""What every kernel's weight offers, so that the engine and the techniques know no format.

Owns the protocol alone. A weight is a matrix [n, k] laid out for one kernel, with its bias.
"""

from collections.abc import Callable
from typing import Any, Protocol


class KernelWeight(Protocol):
    """y = x @ W.T + bias with W [n, k]; x and y are of `dtype`.

    `format` names how W is stored ("bf16", "int4-g32", "w8a8"), `kernel` what multiplies it. The
    tensors are torch.Tensor: this file imports no torch.
    """

    n: int
    k: int
    dtype: Any
    format: str
    kernel: str
    bias: Any

    def __call__(self, x: Any) -> Any:
        """y [..., n] of x [..., k]. Raises ValueError for a wrong shape, dtype or device."""

    def bind(self, x: Any, out: Any, residual: Any = None) -> Callable[[], object]:
        """A call that writes residual + y of x [M, k] into out [M, n]; `out` may be `residual`."""

    def dequantize(self) -> Any:
        """The matrix that the kernel multiplies with, fp32 [n, k]."""

    def tensors(self) -> list[Any]:
        """Every tensor kept in memory, the stored weight first."""
