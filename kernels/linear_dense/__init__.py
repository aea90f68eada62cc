"""Dense linear layer y = x @ weight.T + bias. Checks inputs, chooses the kernel, calls, counts.

Kernels: "torch" (torch.nn.functional.linear, any device, differentiable), "gemv-bf16" (cpu.cpp) and
"gemv-float" (floats.cpp: fp32 and fp16): weights on the CPU, few rows, no autograd; the weight is
streamed once for all rows.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear as torch_linear

from kernels import registry
from kernels.calls import count
from kernels.dtypes import FLOATS, as_torch
from kernels.linear_dense import cuda
from kernels.pages import make_huge

OP = "linear_dense"
FORMATS = {as_torch(name): name for name in FLOATS}
GEMVS = ("gemv-bf16", "gemv-float")
# Above this many rows torch's blocked matrix product is faster (LOG.md).
GEMV_ROWS = 16


class DenseWeight:
    """A weight [N, K] (and bias [N]) made ready for many calls with few rows, for inference
    (kernels.weight.KernelWeight).

    Calling it is `linear(x, weight, bias)` with a few microseconds less per call. The kernel is
    chosen once, at `prepare`; x must have the weight's dtype and device and K columns.
    """

    __slots__ = ("_gemv", "_on_cpu", "bias", "dtype", "format", "k", "kernel", "n", "weight")

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, kernel: str | None = None
    ) -> None:
        _check_weight(weight, bias)
        self.weight = weight.detach().contiguous()
        self.bias = None if bias is None else bias.detach().contiguous()
        self.n, self.k = weight.shape
        self.dtype, self.format = weight.dtype, FORMATS[weight.dtype]
        self._on_cpu = weight.is_cpu
        self.kernel = registry.select(OP, weight.device, self.format, kernel).name
        self._gemv: Any = None
        if self.kernel in GEMVS:
            self._gemv = _made(self.kernel, self.weight, self.bias)
            make_huge(self.weight)

    def __call__(
        self,
        x: torch.Tensor,
        out: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return `residual + x @ weight.T + bias` [..., N] for x [..., K].

        `out`, when given, is a contiguous [..., N] that is filled and returned; it may be
        `residual` itself. The sum with `residual` is rounded once on GEMVS.
        """
        shape = x.shape
        k = self.k
        if x.dtype is not self.dtype or not shape or shape[-1] != k:
            raise ValueError(_mismatch(x, self.dtype, k))
        rows = x.numel() // k
        if out is not None and not self._fits(out, rows):
            raise ValueError(_bad_side("out", out, (*shape[:-1], self.n), self.dtype))
        if residual is not None and not self._fits(residual, rows):
            raise ValueError(_bad_side("residual", residual, (*shape[:-1], self.n), self.dtype))
        gemv = self._gemv
        if (
            gemv is None
            or rows > GEMV_ROWS
            or not x.is_cpu
            or (x.requires_grad and torch.is_grad_enabled())
        ):
            return self._through_torch(x, out, residual)
        if out is None:
            out = x.new_empty((*shape[:-1], self.n))
        if not x.is_contiguous():
            x = x.contiguous()
        count(OP, self.kernel)
        gemv.run(x, out, rows, residual)
        return out

    def _fits(self, side: torch.Tensor, rows: int) -> bool:
        return (
            side.is_contiguous()
            and side.dtype is self.dtype
            and side.is_cpu is self._on_cpu
            and side.numel() == rows * self.n
        )

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> Callable[[], object]:
        """The same call with its arguments fixed, for a step that is repeated.

        A kernels.program.BoundCall where one of GEMVS would run. All of x [M, K], out and residual
        [M, N] must stay where they are; `out` may be `residual`.
        """
        rows = x.numel() // self.k
        if x.dtype is not self.dtype or x.shape[-1:] != (self.k,) or not x.is_contiguous():
            raise ValueError(_mismatch(x, self.dtype, self.k))
        for name, side in (("out", out), ("residual", residual)):
            if side is not None and not self._fits(side, rows):
                raise ValueError(_bad_side(name, side, (*x.shape[:-1], self.n), self.dtype))
        if x.is_cuda:
            return cuda.bound(self.weight, self.bias, x, out, residual)
        if self._gemv is None or rows > GEMV_ROWS or not x.is_cpu:
            return lambda: self(x, out, residual)
        bound: Callable[[], object] = self._gemv.bind(x, out, rows, residual)
        return bound

    def dequantize(self) -> torch.Tensor:
        """The weight in fp32."""
        return self.weight.float()

    def tensors(self) -> list[torch.Tensor]:
        """The weight, and the bias when there is one."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def _through_torch(
        self, x: torch.Tensor, out: torch.Tensor | None, residual: torch.Tensor | None
    ) -> torch.Tensor:
        count(OP, "torch")
        y = torch_linear(x, self.weight, self.bias)
        if residual is not None:
            y = y + residual
        if out is None:
            return y
        return out.copy_(y)


def prepare(
    weight: torch.Tensor, bias: torch.Tensor | None = None, kernel: str | None = None
) -> DenseWeight:
    """Make `weight` [N, K] ready for a decode loop; see DenseWeight.

    Raises ValueError on shapes or dtypes that do not fit, KernelUnavailable when `kernel` names
    one that cannot run here.
    """
    return DenseWeight(weight, bias, kernel)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    kernel: str | None = None,
) -> torch.Tensor:
    """Return x [..., K] times weight [N, K] transposed, plus bias [N]: y [..., N].

    fp32, bf16 or fp16, all of one dtype and device. Differentiable: none of GEMVS is chosen
    when a gradient is needed. `kernel` (or TRIMTAB_KERNEL) names the kernel; one that does not fit
    is then an error. Raises ValueError (shapes, dtypes) or KernelUnavailable, with one sentence.
    """
    _check_weight(weight, bias)
    if x.dtype is not weight.dtype or x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(_mismatch(x, weight.dtype, weight.shape[1]))
    if x.device != weight.device:
        raise ValueError(f"x is on {x.device} and weight on {weight.device}; move one of them.")
    chosen = registry.select(OP, weight.device, FORMATS[weight.dtype], kernel).name
    if chosen in GEMVS:
        reason = _no_gemv(x, weight, bias)
        named = kernel or registry.requested(os.environ.get(registry.ENVIRONMENT, "")).get(OP)
        if reason is None and (named or x.numel() <= GEMV_ROWS * weight.shape[1]):
            return _gemv(chosen, x, weight, bias)
        if reason is not None and named:
            raise registry.KernelUnavailable(f"{OP}={chosen} {reason}; use {OP}=torch.")
    count(OP, "torch")
    return torch_linear(x, weight, bias)


def _gemv(
    kernel: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    n, k = weight.shape
    out = x.new_empty((*x.shape[:-1], n))
    count(OP, kernel)
    _made(kernel, weight, bias).run(x.contiguous(), out, x.numel() // k)
    return out


def _made(kernel: str, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """The weight made ready for one of GEMVS."""
    if kernel == "gemv-bf16":
        from kernels.linear_dense import cpu

        return cpu.Gemv(weight, bias)
    from kernels.linear_dense import floats

    return floats.Gemv(weight, bias)


def _no_gemv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> str | None:
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return "cannot compute gradients"
    return None


def _check_weight(weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be [N, K] with N, K >= 1, not {list(weight.shape)}.")
    if weight.dtype not in FORMATS:
        raise ValueError(f"weight is {weight.dtype}; linear_dense takes fp32, bf16 and fp16.")
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype is not weight.dtype):
        raise ValueError(
            f"bias must be [{weight.shape[0]}] of {weight.dtype}, "
            f"not {list(bias.shape)} of {bias.dtype}."
        )


def _mismatch(x: torch.Tensor, dtype: torch.dtype, k: int) -> str:
    return f"x must be [..., {k}] of {dtype}, not {list(x.shape)} of {x.dtype}."


def _bad_side(name: str, side: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return (
        f"{name} must be contiguous {list(shape)} of {dtype}, "
        f"not {list(side.shape)} of {side.dtype}."
    )
