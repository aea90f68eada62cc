"""SwiGLU with torch alone, for any device."""

from collections.abc import Callable

from torch import Tensor

from kernels import calls
from kernels.swiglu import reference


def swiglu(gate_up: Tensor) -> Tensor:
    """See kernels.swiglu.swiglu."""
    calls.count("swiglu", "torch")
    return reference.swiglu(gate_up)


def prepare(gate_up: Tensor, out: Tensor) -> Callable[[], object]:
    """See kernels.swiglu.prepare."""

    def step() -> None:
        out.copy_(swiglu(gate_up))

    return step
