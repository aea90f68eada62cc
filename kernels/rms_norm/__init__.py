"""RMS norm, with the residual addition that comes before it in a decoder layer.

`rms_norm` is one call; `prepare` binds buffers once for a step that is repeated many times. The
module of a kernel defines `prepare`, and `rms_norm` where it takes a whole prompt at once; each
counts its calls (kernels.calls).
"""

from collections.abc import Callable

from torch import Tensor

from kernels import registry
from kernels.dtypes import FLOAT_OF

OP = "rms_norm"


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension [..., size], in the dtype of x."""
    _, kernel = registry.chosen(OP, x.device, FLOAT_OF[str(x.dtype)], "rms_norm")
    y: Tensor = kernel.rms_norm(x, weight, eps)
    return y


def prepare(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, delta: Tensor | None = None
) -> Callable[[], object]:
    """A call that adds `delta` to x in place and writes the norm of x into `out`; all [rows, size].

    The tensors must stay where they are as long as the call is used. `weight` is [size]; all share
    one dtype. Raises ValueError for shapes or dtypes that do not match.
    """
    for name, tensor in (("out", out), ("delta", delta)):
        if tensor is not None and (tensor.shape != x.shape or tensor.dtype != x.dtype):
            raise ValueError(f"rms_norm: {name} must have the shape and dtype of x.")
    if weight.shape != x.shape[-1:] or weight.dtype != x.dtype:
        raise ValueError("rms_norm: weight must have the size of x's rows and its dtype.")
    _, kernel = registry.chosen(OP, x.device, FLOAT_OF[str(x.dtype)], "prepare")
    step: Callable[[], object] = kernel.prepare(x, weight, eps, out, delta)
    return step
