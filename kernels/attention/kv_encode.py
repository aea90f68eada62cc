"""The Triton kernel that brings new tokens into a KV cache in codes: into the ring, and a block of
tokens into codes when it is complete.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
The layout and the rounding are kernels/kv_codes/codes.py's, bit for bit: divisions round to nearest
and nothing is contracted to a multiply-add (the launch says so).
"""

import triton
import triton.language as tl

from kernels.attention.append import NEW, append
from kernels.attention.kv_device import coded

HALF_MOST = tl.constexpr(65504.0)
# Tokens whose values a program quantizes.
SOME = tl.constexpr(16)


@triton.jit
def _kept(x):
    """fp16 of x, which is 0 for a NaN and clamped."""
    x = tl.where(x != x, 0.0, x)
    return tl.minimum(tl.maximum(x, -HALF_MOST), HALF_MOST).to(tl.float16)


@triton.jit
def _group(low, high, broken, poison, LEVELS: tl.constexpr):
    """Scale, minimum and the minimum as stored of groups, from their smallest and largest number;
    `broken` where a group holds a NaN, `poison` NaN where it holds that or an infinity.
    """
    scale = _kept(tl.div_rn(high - low, tl.zeros_like(low) + LEVELS))
    least = _kept(low)
    scale = tl.where(broken, 0.0, scale.to(tl.float32)).to(tl.float16)
    least = tl.where(broken, 0.0, least.to(tl.float32)).to(tl.float16)
    return scale, least, (least.to(tl.float32) + poison).to(tl.float16)


@triton.jit
def _codes(x, scale, least, LEVELS: tl.constexpr):
    """The codes of x, halves to even, as kernels.kv_codes.codes.quantize rounds them."""
    scale, least = scale.to(tl.float32), least.to(tl.float32)
    steps = tl.div_rn(x - least, tl.where(scale > 0, scale, 1.0))
    steps = tl.where((scale > 0) & (steps == steps), steps, 0.0)
    steps = tl.minimum(tl.maximum(steps, 0.0), LEVELS)
    # Adding 1.5 * 2^23 and taking it away rounds to nearest even.
    return ((steps + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def _encode_keys(
    codes_ptr, scale_ptr, ring_ptr, token, slots, BITS: tl.constexpr, SIZE: tl.constexpr,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One block: a group for each channel of its SIZE tokens."""
    LEVELS: tl.constexpr = (1 << BITS) - 1
    BYTES: tl.constexpr = SIZE * BITS // 8
    d = tl.arange(0, BLOCK_D)
    ok = d < DIM
    s = tl.arange(0, SIZE)
    at = ring_ptr + ((token + s) % slots)[:, None] * DIM + d[None, :]
    x = tl.load(at, mask=ok[None, :], other=0.0).to(tl.float32)
    broken = tl.max((x != x).to(tl.int32), axis=0) > 0
    low, high, poison = tl.min(x, axis=0), tl.max(x, axis=0), tl.sum(x * 0.0, axis=0)
    scale, least, stored = _group(low, high, broken, poison, LEVELS)
    tl.store(scale_ptr + d, scale, mask=ok)
    tl.store(scale_ptr + DIM + d, stored, mask=ok)
    j = tl.arange(0, BYTES)
    packed = tl.zeros((BYTES, BLOCK_D), dtype=tl.int32)
    for place in tl.static_range(8 // BITS):
        at = ring_ptr + ((token + place * BYTES + j) % slots)[:, None] * DIM + d[None, :]
        x = tl.load(at, mask=ok[None, :], other=0.0).to(tl.float32)
        packed |= _codes(x, scale[None, :], least[None, :], LEVELS) << (place * BITS)
    at = codes_ptr + d[None, :] * BYTES + j[:, None]
    tl.store(at, packed.to(tl.uint8), mask=ok[None, :])


@triton.jit
def _encode_values(
    codes_ptr, scale_ptr, ring_ptr, token, some, slots, BITS: tl.constexpr, SIZE: tl.constexpr,
    DIM: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    """SOME tokens of a block from its token `some` on: a group for each SIZE channels of a token.

    The numbers are read again for each bit position: their bytes mix channels of several groups.
    """
    LEVELS: tl.constexpr = (1 << BITS) - 1
    BYTES: tl.constexpr = (DIM * BITS + 7) // 8
    GROUPS: tl.constexpr = (DIM + SIZE - 1) // SIZE
    s = some + tl.arange(0, SOME)
    ring_ptr += ((token + s) % slots)[:, None] * DIM
    scale_ptr += s * (2 * GROUPS)
    j = tl.arange(0, BLOCK_B)[None, :]
    packed = tl.zeros((SOME, BLOCK_B), dtype=tl.int32)
    for place in tl.static_range(8 // BITS):
        c = place * BYTES + j
        ok = (j < BYTES) & (c < DIM)
        x = tl.load(ring_ptr + c, mask=ok, other=0.0).to(tl.float32)
        scales = tl.zeros((SOME, BLOCK_B), dtype=tl.float32)
        minima = tl.zeros((SOME, BLOCK_B), dtype=tl.float32)
        for g in tl.static_range(GROUPS):
            # The last group is filled up with its first channel.
            one = g * SIZE + tl.arange(0, SIZE)[None, :]
            one = tl.where(one < DIM, one, g * SIZE)
            y = tl.load(ring_ptr + one).to(tl.float32)
            broken = tl.max((y != y).to(tl.int32), axis=1) > 0
            low, high, poison = tl.min(y, axis=1), tl.max(y, axis=1), tl.sum(y * 0.0, axis=1)
            scale, least, stored = _group(low, high, broken, poison, LEVELS)
            if place == 0:
                tl.store(scale_ptr + g, scale)
                tl.store(scale_ptr + GROUPS + g, stored)
            mine = c // SIZE == g
            scales = tl.where(mine, scale.to(tl.float32)[:, None], scales)
            minima = tl.where(mine, least.to(tl.float32)[:, None], minima)
        code = _codes(x, scales, minima, LEVELS)
        packed |= tl.where(ok, code, 0) << (place * BITS)
    at = codes_ptr + s[:, None] * BYTES + j
    tl.store(at, packed.to(tl.uint8), mask=j < BYTES)


@triton.jit(
    do_not_specialize=["tokens", "total", "first", "kv_heads", "slots", "blocks", "residual"]
)
def bring_in(
    key_codes_ptr,  # the tensors of KVCodes, see kernels/kv_codes/codes.py
    key_scale_ptr,
    value_codes_ptr,
    value_scale_ptr,
    keys_ptr,
    values_ptr,
    qkv_ptr,  # see `attend`
    cos_ptr,
    sin_ptr,
    key_norm_ptr,
    start_ptr,  # [batch] int64
    tokens, total, first, kv_heads, slots, blocks, residual, eps,
    KEY_NORM: tl.constexpr,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
):  # fmt: skip
    """New tokens into the ring, and the block that they complete into codes; fewer than SIZE tokens
    complete no two.

    The second program index: 0 the keys, then the values of SOME tokens each. Programs that encode
    write the same new tokens each for itself, so that none waits for another.
    """
    unit, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, h = unit // kv_heads, unit % kv_heads
    start = tl.load(start_ptr + b).to(tl.int32) + first
    token = coded(start, residual, SIZE)
    complete = coded(start + tokens, residual, SIZE) > token
    if (part > 0) & (complete == 0):
        return
    keys_ptr += unit * slots * DIM
    values_ptr += unit * slots * DIM
    wide = (GROUP + 2) * kv_heads
    row = (b * total + first) * wide + GROUP * kv_heads + h
    append(
        keys_ptr, values_ptr, qkv_ptr, cos_ptr, sin_ptr, key_norm_ptr, row, wide, kv_heads, start,
        tokens, (start + tl.arange(0, NEW)) % slots, eps, KEY_NORM, DIM, BLOCK_D,
    )  # fmt: skip
    if complete:
        # What other threads of this program appended is read.
        tl.debug_barrier()
        block = unit * blocks + token // SIZE
        if part == 0:
            _encode_keys(
                key_codes_ptr + block * (DIM * (SIZE * BITS // 8)),
                key_scale_ptr + block * (2 * DIM), keys_ptr, token, slots, BITS, SIZE, DIM, BLOCK_D,
            )  # fmt: skip
        else:
            _encode_values(
                value_codes_ptr + block * (SIZE * ((DIM * BITS + 7) // 8)),
                value_scale_ptr + block * (SIZE * 2 * ((DIM + SIZE - 1) // SIZE)),
                values_ptr, token, (part - 1) * SOME, slots, BITS, SIZE, DIM, BLOCK_B,
            )  # fmt: skip
