"""RMS norm with torch alone, for any device."""

from collections.abc import Callable

from torch import Tensor

from kernels import calls
from kernels.rms_norm import reference


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See kernels.rms_norm.rms_norm."""
    calls.count("rms_norm", "torch")
    return reference.rms_norm(x, weight, eps)


def prepare(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, delta: Tensor | None
) -> Callable[[], object]:
    """See kernels.rms_norm.prepare."""

    def step() -> None:
        if delta is not None:
            x.add_(delta)
        out.copy_(rms_norm(x, weight, eps))

    return step
