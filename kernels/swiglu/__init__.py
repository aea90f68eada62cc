"""SwiGLU: the gated activation between a decoder's two MLP matrices.

`swiglu` is one call; `prepare` binds buffers once for a step that is repeated many times.
"""

from collections.abc import Callable

from torch import Tensor

from kernels import calls, registry
from kernels.dtypes import FLOAT_OF
from kernels.swiglu import reference

OP = "swiglu"


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 * size], gate first; returns [..., size] in the same dtype."""
    calls.count(OP, "torch")
    return reference.swiglu(gate_up)


def prepare(gate_up: Tensor, out: Tensor) -> Callable[[], object]:
    """A call that reads gate_up [rows, 2 * size] and writes out [rows, size], of the same dtype.

    The tensors must stay where they are as long as the call is used. Raises ValueError for shapes
    or dtypes that do not match.
    """
    rows, double = gate_up.shape
    if out.shape != (rows, double // 2) or double % 2 or out.dtype != gate_up.dtype:
        raise ValueError("swiglu: out must be [rows, size] for gate_up [rows, 2 * size].")
    info = registry.select(OP, gate_up.device, FLOAT_OF[str(gate_up.dtype)])
    if info.name == "cpp":
        from kernels.swiglu import cpu

        return cpu.prepare(gate_up, out)

    def step() -> None:
        calls.count(OP, "torch")
        out.copy_(reference.swiglu(gate_up))

    return step
