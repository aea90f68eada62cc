"""The Triton kernel that brings new tokens in: head norms, rotary positions, append to the cache.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
Nothing is contracted to a multiply-add (the launches say so), so that keys are torch's bit for bit
where there is no norm. One program for each head of each new token.
"""

import triton
import triton.language as tl


@triton.jit
def _half(from_ptr, norm_ptr, at, ok, scale, NORM: tl.constexpr):
    """Half a head, normed where the model has a norm and rounded as torch keeps that."""
    x = tl.load(from_ptr + at, mask=ok, other=0.0)
    if NORM:
        weight = tl.load(norm_ptr + at, mask=ok, other=0.0).to(tl.float32)
        x = (x.to(tl.float32) * scale * weight).to(x.dtype)
    return x.to(tl.float32)


@triton.jit
def _rotate(
    to_ptr, from_ptr, norm_ptr, cos_ptr, sin_ptr, position, eps,
    NORM: tl.constexpr, DIM: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One head [DIM]: norm, rotary position (Su et al. 2021), stored in the dtype of `to`."""
    HALF: tl.constexpr = DIM // 2
    i = tl.arange(0, BLOCK_H)
    ok = i < HALF
    scale = 1.0
    if NORM:
        a = tl.load(from_ptr + i, mask=ok, other=0.0).to(tl.float32)
        b = tl.load(from_ptr + HALF + i, mask=ok, other=0.0).to(tl.float32)
        scale = tl.rsqrt((tl.sum(a * a, axis=0) + tl.sum(b * b, axis=0)) / DIM + eps)
    a = _half(from_ptr, norm_ptr, i, ok, scale, NORM)
    b = _half(from_ptr, norm_ptr, HALF + i, ok, scale, NORM)
    cos = tl.load(cos_ptr + position * HALF + i, mask=ok, other=0.0)
    sin = tl.load(sin_ptr + position * HALF + i, mask=ok, other=0.0)
    kind = to_ptr.dtype.element_ty
    tl.store(to_ptr + i, (a * cos - b * sin).to(kind), mask=ok)
    tl.store(to_ptr + HALF + i, (b * cos + a * sin).to(kind), mask=ok)


@triton.jit(do_not_specialize=["tokens", "total", "first", "heads", "kv_heads", "slots"])
def append(
    query_ptr,  # [batch, tokens, heads, DIM]: rotated queries
    keys_ptr,  # [batch, kv_heads, slots, DIM]
    values_ptr,  # like keys
    qkv_ptr,  # [batch, total, heads + 2 * kv_heads, DIM]; tokens first, first + 1, ... are taken
    cos_ptr,  # [positions, DIM / 2] fp32
    sin_ptr,
    query_norm_ptr,  # [DIM]
    key_norm_ptr,
    start_ptr,  # [batch] int64: the position of token 0 of qkv
    tokens, total, first, heads, kv_heads, slots, eps,
    QUERY_NORM: tl.constexpr,
    KEY_NORM: tl.constexpr,
    RING: tl.constexpr,  # token t lies in slot t % slots
    DIM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, t = row // tokens, row % tokens
    position = tl.load(start_ptr + b) + first + t
    from_ptr = qkv_ptr + ((b * total + first + t) * (heads + 2 * kv_heads) + head) * DIM
    if head < heads:
        _rotate(
            query_ptr + (row * heads + head) * DIM, from_ptr, query_norm_ptr, cos_ptr, sin_ptr,
            position, eps, QUERY_NORM, DIM, BLOCK_H,
        )  # fmt: skip
    else:
        slot = position % slots if RING else position
        at = ((b * kv_heads + head - heads) * slots + slot) * DIM
        _rotate(
            keys_ptr + at, from_ptr, key_norm_ptr, cos_ptr, sin_ptr, position, eps, KEY_NORM, DIM,
            BLOCK_H,
        )  # fmt: skip
        i = tl.arange(0, BLOCK_D)
        value = tl.load(from_ptr + kv_heads * DIM + i, mask=i < DIM)
        tl.store(values_ptr + at + i, value, mask=i < DIM)
