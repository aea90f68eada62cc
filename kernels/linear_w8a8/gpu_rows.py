"""Triton: rows of x rounded to int8 before a product, and its sums turned into y.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 only. What a product in E4M3 does alike,
kernels.linear_fp8 takes from here: the largest of a row, and both scales put into a sum.
"""

import torch
import triton
import triton.language as tl

from kernels.cuda import on
from kernels.linear_w8a8.codes import TINY


@triton.jit
def largest_of_row(at, k, stride, BLOCK_K: tl.constexpr):
    """The largest magnitude below infinity of k numbers, fp32, and whether one is infinite or not a
    number.
    """
    most = tl.zeros((BLOCK_K,), dtype=tl.float32)
    bad = tl.zeros((BLOCK_K,), dtype=tl.int32)
    for start in range(0, k, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        size = tl.abs(tl.load(at + column * stride, mask=column < k, other=0.0).to(tl.float32))
        # Not below infinity: infinite or not a number.
        bad = bad | tl.where(size < float("inf"), 0, 1)
        most = tl.maximum(most, tl.where(size < float("inf"), size, 0.0))
    return tl.max(most, axis=0), tl.max(bad, axis=0) > 0


@triton.jit
def _quantize_kernel(
    codes_ptr,  # [M, K padded] int8
    scale_ptr,  # [M] fp32
    x_ptr,
    k,
    padded,
    x_stride_row,
    x_stride_k,
    x_scale,
    FIXED: tl.constexpr,
    TINY_MAX: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = x_ptr + row * x_stride_row
    largest, broken = largest_of_row(at, k, x_stride_k, BLOCK_K)
    # Triton's "/" on floats is approximate on the GPU; the other kernels round correctly.
    if FIXED:
        scale = largest * 0 + x_scale
        inverse = tl.div_rn(largest * 0 + 1.0, scale)
    else:
        scale = tl.div_rn(largest, largest * 0 + 127.0)
        safe = tl.where(largest >= TINY_MAX, largest, 1.0)
        inverse = tl.where(largest >= TINY_MAX, tl.div_rn(safe * 0 + 127.0, safe), 0.0)
    tl.store(scale_ptr + row, tl.where(broken, float("nan"), scale))
    for start in range(0, padded, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        x = tl.load(at + column * x_stride_k, mask=column < k, other=0.0).to(tl.float32)
        steps = tl.minimum(tl.maximum(x * inverse, -127.0), 127.0)
        # Adding 1.5 * 2^23 and taking it away rounds to nearest even.
        code = tl.where(broken, 0.0, (steps + 12582912.0) - 12582912.0).to(tl.int8)
        tl.store(codes_ptr + row * padded + column, code, mask=column < padded)


@triton.jit
def _finish_kernel(
    y_ptr,  # [M, N]
    sums_ptr,  # [splits, M, wide] int32 or fp32
    scale_ptr,  # [N] fp32 or fp16
    x_scale_ptr,  # [M] fp32
    bias_ptr,
    residual_ptr,  # [M, N], may be y
    n,
    wide,  # columns of sums, of which n count
    splits,
    split_stride,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = cols < n
    total = tl.zeros((BLOCK,), dtype=sums_ptr.dtype.element_ty)
    for split in range(0, splits):
        total += tl.load(sums_ptr + split * split_stride + row * wide + cols, mask=ok, other=0)
    scale = tl.load(scale_ptr + cols, mask=ok, other=0.0).to(tl.float32)
    y = total.to(tl.float32) * (tl.load(x_scale_ptr + row) * scale)
    if BIAS:
        y += tl.load(bias_ptr + cols, mask=ok, other=0.0).to(tl.float32)
    if RESIDUAL:
        y += tl.load(residual_ptr + row * n + cols, mask=ok, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * n + cols, y.to(y_ptr.dtype.element_ty), mask=ok)


def round_rows(
    x: torch.Tensor, padded: int, x_scale: float | None, least: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """quantize_rows of x [M, k]: codes [max(M, least), padded], filled up by zeros to the right, by
    whatever memory held below; scales fp32 [M].
    """
    rows, k = x.shape
    codes = torch.empty(max(rows, least), padded, dtype=torch.int8, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    with on(x.device):
        _quantize_kernel[(rows,)](
            codes, scale, x, k, padded, x.stride(0), x.stride(1), x_scale or 0.0,
            FIXED=x_scale is not None, TINY_MAX=TINY,
            BLOCK_K=min(4096, triton.next_power_of_2(padded)),
        )  # fmt: skip
    return codes, scale


def finish(
    out: torch.Tensor,
    sums: torch.Tensor,
    splits: int,
    scale: torch.Tensor,
    x_scale: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> None:
    """out [M, n] = sums [>= splits, >= M, >= n], int32 or fp32, added up over the splits, times
    both scales, + bias + residual; out may be residual.
    """
    rows, n = out.shape
    with on(out.device):
        _finish_kernel[(rows, triton.cdiv(n, 512))](
            out, sums, scale, x_scale, scale if bias is None else bias,
            out if residual is None else residual, n, sums.stride(1), splits, sums.stride(0),
            BIAS=bias is not None, RESIDUAL=residual is not None, BLOCK=512,
        )  # fmt: skip
