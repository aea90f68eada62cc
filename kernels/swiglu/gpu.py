"""The kernel "triton": SwiGLU, one program for some neighbouring channels of a row.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import calls, cuda

# Two warps with 8 channels a thread: one load of 16 bytes in bf16 for the gate, one for up.
BLOCK, WARPS = 512, 2


@triton.jit
def gate_kernel(
    out_ptr,  # [rows, SIZE]
    gate_up_ptr,  # [rows, 2 * SIZE], the gate first
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = column < SIZE
    at = gate_up_ptr + row * (2 * SIZE) + column
    gate = tl.load(at, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(at + SIZE, mask=ok, other=0.0).to(tl.float32)
    kind = out_ptr.dtype.element_ty
    # silu(gate) = gate / (1 + exp(-gate)), rounded before it is multiplied as torch does it.
    silu = (gate / (1.0 + tl.exp(-gate))).to(kind).to(tl.float32)
    tl.store(out_ptr + row * SIZE + column, (silu * up).to(kind), mask=ok)


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def swiglu(gate_up: Tensor) -> Tensor:
    """See kernels.swiglu.swiglu."""
    calls.count("swiglu", "triton")
    rows = gate_up.contiguous().view(-1, gate_up.shape[-1])
    out = torch.empty((len(rows), rows.shape[1] // 2), dtype=rows.dtype, device=rows.device)
    _launch(rows, out)
    return out.view(*gate_up.shape[:-1], out.shape[1])


def prepare(gate_up: Tensor, out: Tensor) -> Callable[[], object]:
    """See kernels.swiglu.prepare; any of FLOATS, contiguous."""

    def step() -> None:
        calls.count("swiglu", "triton")
        _launch(gate_up, out)

    return step


def _launch(gate_up: Tensor, out: Tensor) -> None:
    rows, size = out.shape
    if rows == 0:
        return
    with cuda.on(out.device):
        gate_kernel[(rows, triton.cdiv(size, BLOCK))](
            out, gate_up, SIZE=size, BLOCK=BLOCK, num_warps=WARPS
        )
