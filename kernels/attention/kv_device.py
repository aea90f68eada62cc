"""Triton kernels that attend to a cache in codes: decode a block, attend, combine the parts.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
Owns what differs from a cache in 16 bit (device.py); the layout is kernels/kv_codes/codes.py's, the
rule of which tokens are codes KVFormat.coded's. A block of codes is decoded to qkv's dtype in
registers, as kv_torch decodes it, and never stored.
"""

import triton
import triton.language as tl

from kernels.attention.append import halves
from kernels.attention.device import combine_parts, dot, keep, queries, take


@triton.jit
def coded(length, residual, SIZE: tl.constexpr):
    """See KVFormat.coded."""
    return tl.maximum(length - residual, 0) // SIZE * SIZE


@triton.jit
def _spread(packed, BITS: tl.constexpr):
    """The codes [R, 8 / BITS * C] of bytes [R, C]: a bit position after the other, without moving
    anything between threads.
    """
    R: tl.constexpr = packed.shape[0]
    C: tl.constexpr = packed.shape[1]
    if BITS == 4:
        both = tl.join(packed & 15, packed >> 4)
        codes = tl.reshape(tl.permute(both, (0, 2, 1)), (R, 2 * C))
    elif BITS == 2:
        even = tl.join(packed & 3, (packed >> 4) & 3)
        odd = tl.join((packed >> 2) & 3, packed >> 6)
        four = tl.reshape(tl.join(even, odd), (R, C, 4))
        codes = tl.reshape(tl.permute(four, (0, 2, 1)), (R, 4 * C))
    else:
        codes = packed
    return codes


@triton.jit
def _float(code):
    """fp32 of codes below 2^23 through the mantissa of 2^23, without a conversion."""
    return (code.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0


@triton.jit
def _scales(
    key_ptr, value_ptr, block, SIZE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Scales and minima of a block: of keys [BLOCK_D] and of values [SIZE, groups], fp16."""
    GROUPS: tl.constexpr = (DIM + SIZE - 1) // SIZE
    d, inside = halves(DIM, BLOCK_D)
    g = tl.arange(0, BLOCK_D // SIZE)[None, :]
    key_ptr += block * (2 * DIM) + d
    value_ptr += block * (SIZE * 2 * GROUPS) + tl.arange(0, SIZE)[:, None] * (2 * GROUPS) + g
    key_scale = tl.load(key_ptr, mask=inside, other=0.0)
    key_least = tl.load(key_ptr + DIM, mask=inside, other=0.0)
    value_scale = tl.load(value_ptr, mask=g < GROUPS, other=0.0)
    value_least = tl.load(value_ptr + GROUPS, mask=g < GROUPS, other=0.0)
    return key_scale, key_least, value_scale, value_least


@triton.jit
def _keys(
    codes_ptr, scale, least,
    BITS: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A block's keys [BLOCK_D, SIZE], fp32; the rows are the columns of `halves`."""
    BYTES: tl.constexpr = SIZE * BITS // 8
    d, inside = halves(DIM, BLOCK_D)
    at = codes_ptr + d[:, None] * BYTES + tl.arange(0, BYTES)[None, :]
    code = _spread(tl.load(at, mask=inside[:, None], other=0), BITS)
    return _float(code) * scale.to(tl.float32)[:, None] + least.to(tl.float32)[:, None]


@triton.jit
def _values(
    codes_ptr, scale, least,
    BITS: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A block's values [SIZE, BLOCK_D], fp32."""
    BYTES: tl.constexpr = (DIM * BITS + 7) // 8
    GROUPS: tl.constexpr = BLOCK_D // SIZE
    s = tl.arange(0, SIZE)
    if DIM == BLOCK_D:
        at = codes_ptr + s[:, None] * BYTES + tl.arange(0, BYTES)[None, :]
        code = tl.reshape(_spread(tl.load(at), BITS), (SIZE, GROUPS, SIZE))
    else:
        # Bit positions do not end where a power of two does: each byte is loaded for each of them.
        c = tl.arange(0, GROUPS)[None, :, None] * SIZE + tl.arange(0, SIZE)[None, None, :]
        at = codes_ptr + s[:, None, None] * BYTES + c % BYTES
        packed = tl.load(at, mask=c < DIM, other=0).to(tl.int32)
        code = (packed >> (c // BYTES * BITS)) & ((1 << BITS) - 1)
    value = _float(code) * scale.to(tl.float32)[:, :, None] + least.to(tl.float32)[:, :, None]
    return tl.reshape(value, (SIZE, BLOCK_D))


@triton.jit
def block_tiles(start, tokens, window, residual, SIZE: tl.constexpr):
    """The first block of codes that a row's new tokens see, how many there are, and the same for
    tiles of SIZE tokens of the ring, whose first token is given.
    """
    least = tl.maximum(start + 1 - window, 0)
    blocks = tl.maximum(coded(start + tokens, residual, SIZE) // SIZE - least // SIZE, 0)
    ring = tl.maximum(coded(start + 1, residual, SIZE), least)
    return least // SIZE, blocks, ring, tl.cdiv(start + tokens - ring, SIZE)


@triton.jit(
    do_not_specialize=[
        "tokens", "total", "first", "kv_heads", "slots", "blocks", "residual", "window",
    ]
)  # fmt: skip
def attend_codes(
    out_ptr,  # [batch, total, heads, DIM]
    part_ptr,  # [batch, tokens, heads, parts, DIM] fp32
    sum_ptr,  # [batch, tokens, heads, parts] fp32
    key_codes_ptr, key_scale_ptr, value_codes_ptr, value_scale_ptr, keys_ptr, values_ptr,
    qkv_ptr,  # see `attend`
    cos_ptr,
    sin_ptr,
    query_norm_ptr,
    start_ptr,  # [batch] int64
    tokens, total, first, kv_heads, slots, blocks, residual, window, eps, scale,
    QUERY_NORM: tl.constexpr,
    ONE: tl.constexpr,
    FP32_DOT: tl.constexpr,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0).to(tl.int64)
    b, h = tl.program_id(0) // kv_heads, tl.program_id(0) % kv_heads
    start = tl.load(start_ptr + b).to(tl.int32) + first
    end = start + tokens
    skipped, old, ring, new = block_tiles(start, tokens, window, residual, SIZE)
    each = tl.cdiv(old + new, tl.num_programs(1))
    begin = tl.program_id(1) * each
    stop = tl.minimum(begin + each, old + new)
    if begin >= stop:
        return
    q, t, place, there = queries(
        qkv_ptr, query_norm_ptr, cos_ptr, sin_ptr, b, h, start, tokens, total, first, kv_heads,
        eps, QUERY_NORM, GROUP, DIM, BLOCK_M, BLOCK_D,
    )  # fmt: skip
    at = start + t
    # Before this position a query sees codes, from it on the ring.
    border = coded(at + 1, residual, SIZE)
    d = tl.arange(0, BLOCK_D)
    channel, inside = halves(DIM, BLOCK_D)
    keys_ptr += unit * slots * DIM
    values_ptr += unit * slots * DIM
    total_weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
    largest = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    last = tl.minimum(stop, old)
    if begin < last:
        block = unit * blocks + skipped + begin
        sides = _scales(key_scale_ptr, value_scale_ptr, block, SIZE, DIM, BLOCK_D)
        key_scale, key_least, value_scale, value_least = sides
        for tile in range(begin, last):
            block = unit * blocks + skipped + tile
            n = (skipped + tile) * SIZE + tl.arange(0, SIZE)
            # Triton fetches codes ahead but not scales: those of the next block are on their way
            # while this one is multiplied.
            next_block = unit * blocks + skipped + tl.minimum(tile + 1, last - 1)
            sides = _scales(key_scale_ptr, value_scale_ptr, next_block, SIZE, DIM, BLOCK_D)
            key = _keys(
                key_codes_ptr + block * (DIM * (SIZE * BITS // 8)), key_scale, key_least,
                BITS, SIZE, DIM, BLOCK_D,
            )  # fmt: skip
            scores = dot(q, key.to(q.dtype), FP32_DOT) * scale
            seen = (n[None, :] < border[:, None]) & (n[None, :] > at[:, None] - window)
            value = _values(
                value_codes_ptr + block * (SIZE * ((DIM * BITS + 7) // 8)), value_scale,
                value_least, BITS, SIZE, DIM, BLOCK_D,
            )  # fmt: skip
            total_weight, largest, mixed = take(
                total_weight, largest, mixed, scores, seen, value.to(q.dtype), FP32_DOT
            )
            key_scale, key_least, value_scale, value_least = sides
    for tile in range(tl.maximum(begin, old), stop):
        n = ring + (tile - old) * SIZE + tl.arange(0, SIZE)
        cells = (n % slots)[:, None] * DIM
        ok = (n < end)[:, None]
        key = tl.load(keys_ptr + cells + channel[None, :], mask=ok & inside[None, :], other=0.0)
        scores = dot(q, tl.trans(key), FP32_DOT) * scale
        seen = (n[None, :] >= border[:, None]) & (n[None, :] <= at[:, None])
        seen = seen & (n[None, :] > at[:, None] - window)
        value = tl.load(values_ptr + cells + d[None, :], mask=ok & (d < DIM)[None, :], other=0.0)
        total_weight, largest, mixed = take(
            total_weight, largest, mixed, scores, seen, value, FP32_DOT
        )
    keep(
        out_ptr, part_ptr, sum_ptr, total_weight, largest, mixed, place, there, tokens,
        kv_heads * GROUP, total, first, d, d < DIM, ONE, DIM,
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens", "total", "first", "heads", "residual", "window", "parts"])
def combine_codes(
    out_ptr, part_ptr, sum_ptr, start_ptr, tokens, total, first, heads, residual, window, parts,
    SIZE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The parts of `attend_codes` become its result; the arguments are those of `attend_codes`."""
    row = tl.program_id(0).to(tl.int64)
    b, inner = row // (tokens * heads), row % (tokens * heads)
    start = tl.load(start_ptr + b).to(tl.int32) + first
    _, old, _, new = block_tiles(start, tokens, window, residual, SIZE)
    used = tl.cdiv(old + new, tl.cdiv(old + new, parts))
    to = (b * total + first) * heads + inner
    combine_parts(out_ptr, part_ptr, sum_ptr, row, to, parts, used, DIM, BLOCK_D)
