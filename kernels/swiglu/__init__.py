"""SwiGLU: the gated activation between a decoder's two MLP matrices.

`swiglu` is one call; `prepare` binds buffers once for a step that is repeated many times. The
module of a kernel defines `prepare`, and `swiglu` where it takes a whole prompt at once; each
counts its calls (kernels.calls).
"""

from collections.abc import Callable

from torch import Tensor

from kernels import registry
from kernels.dtypes import FLOAT_OF

OP = "swiglu"


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 * size], gate first; returns [..., size] in the same dtype."""
    _, kernel = registry.chosen(OP, gate_up.device, FLOAT_OF[str(gate_up.dtype)], "swiglu")
    y: Tensor = kernel.swiglu(gate_up)
    return y


def prepare(gate_up: Tensor, out: Tensor) -> Callable[[], object]:
    """A call that reads gate_up [rows, 2 * size] and writes out [rows, size], of the same dtype.

    The tensors must stay where they are as long as the call is used. Raises ValueError for shapes
    or dtypes that do not match.
    """
    rows, double = gate_up.shape
    if out.shape != (rows, double // 2) or double % 2 or out.dtype != gate_up.dtype:
        raise ValueError("swiglu: out must be [rows, size] for gate_up [rows, 2 * size].")
    _, kernel = registry.chosen(OP, gate_up.device, FLOAT_OF[str(gate_up.dtype)], "prepare")
    step: Callable[[], object] = kernel.prepare(gate_up, out)
    return step
