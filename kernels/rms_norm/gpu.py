"""The kernel "triton": RMS norm with the residual before it, one program for each row.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only.
A row lies in registers between its sum and its norm. Nothing is autotuned: `delta` is added in
place, and a kernel that is run many times to be timed would add it many times.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import calls, cuda

# Numbers of a row that a warp holds: 16 a thread, two loads of 16 bytes in bf16.
WARP_SIZE, MOST_WARPS = 512, 16


@triton.jit
def norm_kernel(
    out_ptr,  # [rows, SIZE]
    x_ptr,  # [rows, SIZE]
    delta_ptr,  # [rows, SIZE]
    weight_ptr,  # [SIZE]
    eps,
    SIZE: tl.constexpr,
    DELTA: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    ok = column < SIZE
    at = tl.program_id(0).to(tl.int64) * SIZE + column
    x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)
    kind = x_ptr.dtype.element_ty
    if DELTA:
        # The sum as it is kept, rounded, is what is normed.
        kept = (x + tl.load(delta_ptr + at, mask=ok, other=0.0).to(tl.float32)).to(kind)
        tl.store(x_ptr + at, kept, mask=ok)
        x = kept.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / SIZE + eps)
    normed = (x * scale).to(kind).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=ok, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (weight * normed).to(kind), mask=ok)


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See kernels.rms_norm.rms_norm."""
    calls.count("rms_norm", "triton")
    rows = x.contiguous().view(-1, x.shape[-1])
    out = torch.empty_like(rows)
    _launch(rows, weight.contiguous(), eps, out, None)
    return out.view(x.shape)


def prepare(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, delta: Tensor | None
) -> Callable[[], object]:
    """See kernels.rms_norm.prepare; any of FLOATS, contiguous."""
    weight = weight.contiguous()

    def step() -> None:
        calls.count("rms_norm", "triton")
        _launch(x, weight, eps, out, delta)

    return step


def _launch(x: Tensor, weight: Tensor, eps: float, out: Tensor, delta: Tensor | None) -> None:
    rows, size = x.shape
    if rows == 0:
        return
    block = triton.next_power_of_2(size)
    with cuda.on(x.device):
        norm_kernel[(rows,)](
            out, x, x if delta is None else delta, weight, eps,
            SIZE=size, DELTA=delta is not None, BLOCK=block,
            num_warps=min(MOST_WARPS, max(1, block // WARP_SIZE)),
        )  # fmt: skip
