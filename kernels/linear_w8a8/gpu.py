"""Triton W8A8: rows of x rounded to int8, then an int8 product with scales at the end.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 only; block sizes are guesses until measured.
Owns the kernels and their launcher; the form is codes.py's, checks are the operation's face's.

Codes lie as int8 [n, k] with k rounded up to 16, so that the four bytes of an int8 dot product and
a thread's 16-byte load are whole. Sums are int32 and exact; one row goes to the matrix-vector
kernel. Both split the sum over k where the tiles alone do not fill the device: partial sums are
int32 too, so their order does not matter.
"""

import functools

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from kernels.linear_w8a8.codes import TINY, W8A8

K_MULTIPLE = 16
# Programs that share one sum over k, at most.
MAX_SPLIT = 16


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def refuse(form: W8A8, dtype: torch.dtype) -> str | None:
    """None: it takes every form."""
    return None


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
    most = tl.zeros((BLOCK_K,), dtype=tl.float32)
    bad = tl.zeros((BLOCK_K,), dtype=tl.int32)
    for start in range(0, k, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        x = tl.load(at + column * x_stride_k, mask=column < k, other=0.0).to(tl.float32)
        size = tl.abs(x)
        # Not below infinity: infinite or not a number.
        bad = bad | tl.where(size < float("inf"), 0, 1)
        most = tl.maximum(most, tl.where(size < float("inf"), size, 0.0))
    largest = tl.max(most, axis=0)
    broken = tl.max(bad, axis=0) > 0
    if FIXED:
        scale = largest * 0 + x_scale
        inverse = 1.0 / scale
    else:
        # Triton's "/" on floats is approximate on the GPU; the other kernels round correctly.
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
def _gemm_kernel(
    sums_ptr,  # [splits, M, N] int32
    x_ptr,  # [M, K padded] int8
    w_ptr,  # [N, K padded] int8
    rows,
    n,
    padded,
    k_per_split,
    sums_stride_split,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    split = tl.program_id(2).to(tl.int64)
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok, col_ok = m < rows, cols < n
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    first = split * k_per_split
    last = tl.minimum(first + k_per_split, padded)
    for start in range(first, last, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        x = tl.load(
            x_ptr + m[:, None] * padded + j[None, :],
            mask=row_ok[:, None] & (j < last)[None, :],
            other=0,
        )
        w = tl.load(
            w_ptr + cols[None, :] * padded + j[:, None],
            mask=col_ok[None, :] & (j < last)[:, None],
            other=0,
        )
        total += tl.dot(x, w, out_dtype=tl.int32)
    out = sums_ptr + split * sums_stride_split + m[:, None] * n + cols[None, :]
    tl.store(out, total, mask=row_ok[:, None] & col_ok[None, :])


@triton.jit
def _gemv_kernel(
    sums_ptr,  # [splits, 1, N] int32
    x_ptr,
    w_ptr,
    n,
    padded,
    k_per_split,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    split = tl.program_id(1).to(tl.int64)
    cols = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    col_ok = cols < n
    total = tl.zeros((BLOCK_N,), dtype=tl.int32)
    first = split * k_per_split
    last = tl.minimum(first + k_per_split, padded)
    for start in range(first, last, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_ptr + j, mask=j < last, other=0).to(tl.int32)
        w = tl.load(
            w_ptr + cols[:, None] * padded + j[None, :],
            mask=col_ok[:, None] & (j < last)[None, :],
            other=0,
        ).to(tl.int32)
        total += tl.sum(w * x[None, :], axis=1)
    tl.store(sums_ptr + split * n + cols, total, mask=col_ok)


@triton.jit
def _finish_kernel(
    y_ptr,  # [M, N]
    sums_ptr,  # [splits, M, N] int32
    scale_ptr,  # [N] fp32
    x_scale_ptr,  # [M] fp32
    bias_ptr,
    n,
    splits,
    split_stride,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = cols < n
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for split in range(0, splits):
        total += tl.load(sums_ptr + split * split_stride + row * n + cols, mask=ok, other=0)
    scale = tl.load(scale_ptr + cols, mask=ok, other=0.0)
    y = total.to(tl.float32) * (tl.load(x_scale_ptr + row) * scale)
    if BIAS:
        y += tl.load(bias_ptr + cols, mask=ok, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * n + cols, y.to(y_ptr.dtype.element_ty), mask=ok)


class Product:
    """See W8A8Weight: int8 codes of the columns that are not left out, their number rounded up."""

    def __init__(self, form: W8A8, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self._bias = form.n, form.k, bias
        self._scale, self._x_scale, self._apart = form.scale.contiguous(), form.x_scale, form.apart
        self._columns = None if form.apart is None else form.kept_columns()
        codes = form.kept()
        self._width = codes.shape[1]
        self._codes = pad(codes, (0, -self._width % K_MULTIPLE)).contiguous()

    def quantized(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes int8 [M, k rounded up] and scales fp32 [M] of x [M, width]."""
        padded = self._codes.shape[1]
        codes = torch.empty(len(x), padded, dtype=torch.int8, device=x.device)
        scale = torch.empty(len(x), dtype=torch.float32, device=x.device)
        _quantize_kernel[(len(x),)](
            codes, scale, x, self._width, padded, x.stride(0), x.stride(1), self._x_scale or 0.0,
            FIXED=self._x_scale is not None, TINY_MAX=TINY,
            BLOCK_K=min(4096, triton.next_power_of_2(padded)),
        )  # fmt: skip
        return codes, scale

    def __call__(self, x: torch.Tensor, split: int | None = None) -> torch.Tensor:
        """x [M, k] -> y [M, n]. `split` programs share a sum over k; by default enough of them."""
        rows, padded = len(x), self._codes.shape[1]
        if self._columns is not None:
            x = x.index_select(1, self._columns)
        codes, x_scale = self.quantized(x)
        block_m = 16 if rows <= 16 else 64 if rows <= 64 else 128
        block_n, block_k = (64 if rows > 1 else 32), 128
        tiles = triton.cdiv(self.n, block_n) * triton.cdiv(rows, block_m)
        steps = triton.cdiv(padded, block_k)
        if split is None:
            split = max(1, min(MAX_SPLIT, 2 * _processors(x.device) // tiles))
        per_split = triton.cdiv(steps, min(split, steps)) * block_k
        splits = triton.cdiv(padded, per_split)
        sums = torch.empty((splits, rows, self.n), dtype=torch.int32, device=x.device)
        if rows == 1:
            _gemv_kernel[(triton.cdiv(self.n, block_n), splits)](
                sums, codes, self._codes, self.n, padded, per_split,
                BLOCK_N=block_n, BLOCK_K=block_k,
            )  # fmt: skip
        else:
            grid = (triton.cdiv(rows, block_m), triton.cdiv(self.n, block_n), splits)
            _gemm_kernel[grid](
                sums, codes, self._codes, rows, self.n, padded, per_split, sums.stride(0),
                BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
            )  # fmt: skip
        y = torch.empty((rows, self.n), dtype=x.dtype, device=x.device)
        _finish_kernel[(rows, triton.cdiv(self.n, 512))](
            y, sums, self._scale, x_scale, self._scale if self._bias is None else self._bias,
            self.n, splits, sums.stride(0), BIAS=self._bias is not None, BLOCK=512,
        )  # fmt: skip
        return y

    def undo(self) -> W8A8:
        """The canonical form."""
        codes = self._codes[:, : self._width].contiguous()
        return W8A8.of_kept(codes, self._scale, self._x_scale, self._apart, self.k)

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, the columns left out and the others."""
        tensors = [self._codes, self._scale]
        if self._apart is not None and self._columns is not None:
            tensors += [self._apart, self._columns]
        return tensors


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
