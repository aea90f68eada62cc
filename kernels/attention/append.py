"""What the Triton kernels do to the heads of new tokens: norm, rotary position, append to a cache.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
The kernels that use this are launched without contraction to multiply-adds, so that keys are
torch's bit for bit where there is no norm.

A tile of rotated heads has its channels as two halves, each filled up to a power of two: `halves`
names the channel of a column. Where the width is a power of two those are the columns in order.
"""

import triton
import triton.language as tl

from kernels.kv_codes import PASS_TOKENS

# New tokens of a row that one launch takes at most; a tile of the matrix units as well.
NEW = tl.constexpr(PASS_TOKENS)


@triton.jit
def halves(DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """The channel of each column of a tile of rotated heads, and whether there is one."""
    column = tl.arange(0, BLOCK_D)
    if DIM == BLOCK_D:
        channel, inside = column, column < DIM
    else:
        HALF: tl.constexpr = DIM // 2
        WIDE: tl.constexpr = BLOCK_D // 2
        channel = column // WIDE * HALF + column % WIDE
        inside = column % WIDE < HALF
    return channel, inside


@triton.jit
def _normed(x, weight_ptr, at, inside, scale):
    """Half of each head times its norm, rounded as torch keeps that."""
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    return (x.to(tl.float32) * scale[:, None] * weight[None, :]).to(x.dtype)


@triton.jit
def rotated(
    qkv_ptr, row, there, position, norm_ptr, cos_ptr, sin_ptr, eps,
    NORM: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Heads [R, BLOCK_D] normed and rotated to `position` [R] (Su et al. 2021), in qkv's dtype; the
    columns are those of `halves`. Head `row` [R] of qkv is read where it is `there`.
    """
    HALF: tl.constexpr = DIM // 2
    WIDE: tl.constexpr = BLOCK_D // 2
    R: tl.constexpr = row.shape[0]
    i = tl.arange(0, WIDE)
    inside = i < HALF
    ok = there[:, None] & inside[None, :]
    at = qkv_ptr + row.to(tl.int64)[:, None] * DIM + i[None, :]
    a = tl.load(at, mask=ok, other=0.0)
    b = tl.load(at + HALF, mask=ok, other=0.0)
    if NORM:
        x, y = a.to(tl.float32), b.to(tl.float32)
        scale = tl.rsqrt((tl.sum(x * x, axis=1) + tl.sum(y * y, axis=1)) / DIM + eps)
        a = _normed(a, norm_ptr, i, inside, scale)
        b = _normed(b, norm_ptr, HALF + i, inside, scale)
    turn = position.to(tl.int64)[:, None] * HALF + i[None, :]
    cos = tl.load(cos_ptr + turn, mask=ok, other=0.0)
    sin = tl.load(sin_ptr + turn, mask=ok, other=0.0)
    x, y = a.to(tl.float32), b.to(tl.float32)
    both = tl.join((x * cos - y * sin).to(a.dtype), (y * cos + x * sin).to(a.dtype))
    return tl.reshape(tl.permute(both, (0, 2, 1)), (R, BLOCK_D))


@triton.jit
def append(
    keys_ptr, values_ptr, qkv_ptr, cos_ptr, sin_ptr, key_norm_ptr, row, wide, kv_heads, start,
    tokens, cells, eps, NORM: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rotated keys and the values [NEW, BLOCK_D] of the new tokens for one key and value head, put
    into the `cells` [NEW] of its cache. `row` is the first key's place in qkv, whose tokens have
    `wide` heads each. Columns of keys are those of `halves`, columns of values are channels.
    """
    j = tl.arange(0, NEW)
    there = j < tokens
    place = row + j * wide
    key = rotated(
        qkv_ptr, place, there, start + j, key_norm_ptr, cos_ptr, sin_ptr, eps, NORM, DIM, BLOCK_D
    )
    channel, inside = halves(DIM, BLOCK_D)
    to = cells[:, None] * DIM
    tl.store(keys_ptr + to + channel[None, :], key, mask=there[:, None] & inside[None, :])
    d = tl.arange(0, BLOCK_D)
    ok = there[:, None] & (d < DIM)[None, :]
    at = qkv_ptr + (place + kv_heads).to(tl.int64)[:, None] * DIM + d[None, :]
    value = tl.load(at, mask=ok, other=0.0)
    tl.store(values_ptr + to + d[None, :], value, mask=ok)
    return key, value
