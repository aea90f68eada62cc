"""Triton: rows of x rounded to E4M3 before a product of codes.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 only.
"""

import torch
import triton
import triton.language as tl

from kernels.cuda import on
from kernels.linear_fp8.codes import MOST, TINY
from kernels.linear_w8a8.gpu_rows import largest_of_row


@triton.jit
def _rounded(steps):
    """fp32 steps rounded to E4M3's grid, halves to even."""
    bits = steps.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & 0xFFF00000).to(tl.float32, bitcast=True)
    # Below 2^-6 the steps are 2^-9; adding 1.5 * 2^14 and taking it away rounds to them.
    small = (steps + 24576.0) - 24576.0
    return tl.where(tl.abs(steps) < 0.015625, small, normal)


@triton.jit
def _quantize_kernel(
    codes_ptr,  # [M, K padded] E4M3
    scale_ptr,  # [M] fp32
    x_ptr,  # [M, K]
    k,
    padded,
    LARGEST: tl.constexpr,
    TINY_MAX: tl.constexpr,
    ROUND_FIRST: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = x_ptr + row * k
    largest, broken = largest_of_row(at, k, 1, BLOCK_K)
    # Triton's "/" on floats is approximate on the GPU; torch rounds correctly.
    scale = tl.div_rn(largest, largest * 0 + LARGEST)
    safe = tl.where(largest >= TINY_MAX, largest, 1.0)
    inverse = tl.where(largest >= TINY_MAX, tl.div_rn(safe * 0 + LARGEST, safe), 0.0)
    tl.store(scale_ptr + row, tl.where(broken, float("nan"), scale))
    for start in range(0, padded, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        x = tl.load(at + column, mask=column < k, other=0.0).to(tl.float32)
        steps = tl.minimum(tl.maximum(x * inverse, -LARGEST), LARGEST)
        if ROUND_FIRST:
            steps = _rounded(steps)
        code = tl.where(broken, 0.0, steps).to(tl.float8e4nv)
        tl.store(codes_ptr + row * padded + column, code, mask=column < padded)


def round_rows(x: torch.Tensor, padded: int) -> tuple[torch.Tensor, torch.Tensor]:
    """quantize_rows of x [M, k], contiguous, with the codes [M, padded] filled up by zeros."""
    rows, k = x.shape
    codes = torch.empty(rows, padded, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    with on(x.device):
        _quantize_kernel[(rows,)](
            codes, scale, x, k, padded, LARGEST=MOST, TINY_MAX=TINY,
            # Triton's interpreter rounds 1.98 to 1 in a conversion to 8 bits.
            ROUND_FIRST=x.device.type == "cpu",
            BLOCK_K=min(4096, triton.next_power_of_2(padded)),
        )  # fmt: skip
    return codes, scale
