"""Triton W4A16: y = x @ dequantized(w).T on 4-bit codes with a scale and a zero per group.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 only; block sizes are guesses until measured
(LOG.md). Owns the layout, the two kernels and their launcher; checks are in `__init__.py`.

Layout, made from QuantizedW4 with K rounded up to pairs of groups: byte (n, p * G + j) of
`packed` [N, K / 2] holds column j of group 2p in its low nibble and column j of group 2p + 1 in its
high one, so that each half of a tile has one scale per row of w. `scale_zero` is [K / G, N, 2].

The scale is applied after the product: sum_k x_k ((c_k - 8) s + z) = s * sum_k x_k (c_k - 8)
+ z * sum_k x_k over one group. Codes are exact in any float format, and the scaling costs one
multiply per output and group instead of one per weight.
"""

import functools

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from kernels.linear_w4.codes import QuantizedW4, pack_nibbles

# Partial sums are added over this many programs at most.
MAX_SPLIT = 16


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def lay_out(quantized: QuantizedW4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (packed uint8 [N, K / 2], scale and zero [K / G, N, 2]); see the module's text."""
    n, group = quantized.n, quantized.group_size
    codes = pad(quantized.codes(), (0, -quantized.k % (2 * group) % (2 * group)))
    columns = -(-quantized.k // (2 * group)) * 2 * group
    codes = codes[:, :columns].view(n, -1, 2, group)
    packed = (codes[:, :, 0] | (codes[:, :, 1] << 4)).reshape(n, -1)
    scale_zero = torch.stack((quantized.scale.t(), quantized.zero.t()), dim=2)
    missing = columns // group - scale_zero.shape[0]
    return packed.contiguous(), pad(scale_zero, (0, 0, 0, 0, 0, missing)).contiguous()


def undo(
    packed: torch.Tensor, scale_zero: torch.Tensor, n: int, k: int, group_size: int
) -> QuantizedW4:
    """The canonical form back from `lay_out`, exactly."""
    halves = packed.view(n, -1, group_size)
    codes = torch.stack((halves & 15, halves >> 4), dim=2).view(n, -1)
    groups = -(-k // group_size)
    scale, zero = scale_zero[:groups].permute(2, 1, 0).contiguous().unbind(0)
    return QuantizedW4(pack_nibbles(codes[:, : groups * group_size]), scale, zero, n, k, group_size)


@triton.jit
def _gemm_kernel(
    y_ptr,  # [splits, M, N] fp32 partial sums
    x_ptr,
    packed_ptr,
    scale_zero_ptr,
    rows,
    n,
    k,
    pairs,
    pairs_per_split,
    y_stride_split,
    y_stride_row,
    x_stride_row,
    x_stride_k,
    packed_stride_n,
    scale_stride_group,
    scale_stride_n,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
    FP32_DOT: tl.constexpr,
):
    split = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, GROUP)
    row_ok = m < rows
    col_ok = cols < n
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    first = split * pairs_per_split
    last = tl.minimum(first + pairs_per_split, pairs)
    for pair in range(first, last):
        byte = tl.load(
            packed_ptr + cols[None, :] * packed_stride_n + (pair * GROUP + j)[:, None],
            mask=col_ok[None, :],
            other=0x88,
        )
        for half in tl.static_range(2):
            group = pair * 2 + half
            column = group * GROUP + j
            x = tl.load(
                x_ptr + m[:, None] * x_stride_row + column[None, :] * x_stride_k,
                mask=row_ok[:, None] & (column < k)[None, :],
                other=0.0,
            )
            if FP32_DOT:
                x = x.to(tl.float32)
            steps = (((byte >> (4 * half)) & 15).to(tl.int8) - 8).to(x.dtype)
            at = scale_zero_ptr + group * scale_stride_group + cols * scale_stride_n
            scale = tl.load(at, mask=col_ok, other=0.0).to(tl.float32)
            zero = tl.load(at + 1, mask=col_ok, other=0.0).to(tl.float32)
            part = tl.dot(x, steps, input_precision=PRECISION)
            total += part * scale[None, :]
            total += tl.sum(x.to(tl.float32), axis=1)[:, None] * zero[None, :]
    out = y_ptr + split * y_stride_split + m[:, None] * y_stride_row + cols[None, :]
    tl.store(out, total, mask=row_ok[:, None] & col_ok[None, :])


@triton.jit
def _gemv_kernel(
    y_ptr,  # [splits, 1, N] fp32 partial sums
    x_ptr,
    packed_ptr,
    scale_zero_ptr,
    n,
    k,
    pairs,
    pairs_per_split,
    y_stride_split,
    x_stride_k,
    packed_stride_n,
    scale_stride_group,
    scale_stride_n,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    split = tl.program_id(1).to(tl.int64)
    cols = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, GROUP)
    col_ok = cols < n
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    first = split * pairs_per_split
    last = tl.minimum(first + pairs_per_split, pairs)
    for pair in range(first, last):
        byte = tl.load(
            packed_ptr + cols[:, None] * packed_stride_n + (pair * GROUP + j)[None, :],
            mask=col_ok[:, None],
            other=0x88,
        )
        for half in tl.static_range(2):
            group = pair * 2 + half
            column = group * GROUP + j
            x = tl.load(x_ptr + column * x_stride_k, mask=column < k, other=0.0).to(tl.float32)
            steps = (((byte >> (4 * half)) & 15).to(tl.int8) - 8).to(tl.float32)
            at = scale_zero_ptr + group * scale_stride_group + cols * scale_stride_n
            scale = tl.load(at, mask=col_ok, other=0.0).to(tl.float32)
            zero = tl.load(at + 1, mask=col_ok, other=0.0).to(tl.float32)
            total += tl.sum(steps * x[None, :], axis=1) * scale + tl.sum(x, axis=0) * zero
    tl.store(y_ptr + split * y_stride_split + cols, total, mask=col_ok)


def matmul(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale_zero: torch.Tensor,
    group_size: int,
    split: int | None = None,
) -> torch.Tensor:
    """x [M, k] (any strides, k without padding) -> y [M, N] in x's dtype, summed in fp32.

    One row goes to the matrix-vector kernel. `split` is the number of programs that share one
    sum over K; by default enough to fill the device. Partial sums are added in a fixed order.
    """
    rows, k = x.shape
    n = packed.shape[0]
    pairs = packed.shape[1] // group_size
    block_m = 16 if rows <= 16 else 32 if rows <= 32 else 64
    block_n = 64
    tiles = triton.cdiv(n, block_n) * triton.cdiv(rows, block_m)
    if split is None:
        split = max(1, min(MAX_SPLIT, pairs, 2 * _processors(x.device) // tiles))
    per_split = triton.cdiv(pairs, max(1, min(split, pairs)))
    splits = triton.cdiv(pairs, per_split)
    partial = torch.empty((splits, rows, n), dtype=torch.float32, device=x.device)
    if rows == 1:
        _gemv_kernel[(triton.cdiv(n, block_n), splits)](
            partial, x, packed, scale_zero, n, k, pairs, per_split,
            partial.stride(0), x.stride(1), packed.stride(0),
            scale_zero.stride(0), scale_zero.stride(1),
            GROUP=group_size, BLOCK_N=block_n,
        )  # fmt: skip
    else:
        _gemm_kernel[(triton.cdiv(rows, block_m), triton.cdiv(n, block_n), splits)](
            partial, x, packed, scale_zero, rows, n, k, pairs, per_split,
            partial.stride(0), partial.stride(1), x.stride(0), x.stride(1),
            packed.stride(0), scale_zero.stride(0), scale_zero.stride(1),
            GROUP=group_size, BLOCK_M=block_m, BLOCK_N=block_n,
            PRECISION="ieee" if x.dtype is torch.float32 else "tf32",
            # Triton's interpreter multiplies the bit patterns of bf16 in a dot.
            FP32_DOT=x.device.type == "cpu",
        )  # fmt: skip
    y = partial[0] if splits == 1 else partial.sum(dim=0)
    return y.to(x.dtype)


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
