"""Triton kernels of decode attention: append and attend to a part of the context, combine parts.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
Owns the device code that caches in 16 bit and in codes share, but for the heads of new tokens
(append.py); gpu.py and kv_gpu.py launch it.

A program of `attend` has one key and value head of one row with all queries that share it, so that
keys and values are read once. The queries (heads of the group x new tokens) are the rows of a tile
for the matrix units, filled up to 16: those units wait for memory here, and the vector units would
not keep up from four queries on. The context is split over programs; each keeps the largest score,
the sum and the mixture of its part, which `combine` puts together (log-sum-exp, Dao et al. 2023).
How long the rows are is read here, so the grid is the same at every length: programs without a part
leave at once.
"""

import triton
import triton.language as tl

from kernels.attention.append import NEW, append, halves, rotated

# Parts that `combine` reads at once.
PARTS = tl.constexpr(16)


@triton.jit
def dot(a, b, FP32_DOT: tl.constexpr):
    """a @ b summed in fp32. Triton's interpreter multiplies the bit patterns of bf16 in a dot."""
    if FP32_DOT:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision="ieee")


@triton.jit
def take(total, largest, mixed, scores, seen, values, FP32_DOT: tl.constexpr):
    """A tile more in a running softmax: scores [M, N] in powers of two, values [N, D]."""
    scores = tl.where(seen, scores, float("-inf"))
    highest = tl.maximum(largest, tl.max(scores, axis=1))
    # A row that has seen nothing yet must not subtract infinity from infinity.
    base = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(scores - base[:, None])
    fade = tl.exp2(largest - base)
    mixed = mixed * fade[:, None] + dot(weights.to(values.dtype), values, FP32_DOT)
    return total * fade + tl.sum(weights, axis=1), highest, mixed


@triton.jit
def queries(
    qkv_ptr, norm_ptr, cos_ptr, sin_ptr, b, h, start, tokens, total, first, kv_heads, eps,
    NORM: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rotated queries [BLOCK_M, BLOCK_D] of a tile, and each row's token, place in [batch, tokens,
    heads] and whether it is there.
    """
    r = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    t, heads = r // GROUP, kv_heads * GROUP
    head, there = h * GROUP + r % GROUP, t < tokens
    row = (b * total + first + t) * (heads + 2 * kv_heads) + head
    q = rotated(qkv_ptr, row, there, start + t, norm_ptr, cos_ptr, sin_ptr, eps, NORM, DIM, BLOCK_D)
    return q, t, (b * tokens + t) * heads + head, there


@triton.jit
def keep(
    out_ptr, part_ptr, sum_ptr, total, largest, mixed, place, there, tokens, wide, total_tokens,
    first, d, inside, ONE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Store the result where there is ONE part, else this part's mixture and log-sum-exp; `d` are
    the channels of the columns, `inside` says which there are.
    """
    ok = there[:, None] & inside[None, :]
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    if ONE:
        # From [batch, tokens, heads] to [batch, total_tokens, heads].
        each = tokens * wide
        to = (place // each) * (total_tokens * wide) + first * wide + place % each
        at = to.to(tl.int64)[:, None] * DIM + d[None, :]
        tl.store(out_ptr + at, mixed.to(out_ptr.dtype.element_ty), mask=ok)
    else:
        at = place.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
        tl.store(part_ptr + at[:, None] * DIM + d[None, :], mixed, mask=ok)
        tl.store(sum_ptr + at, largest + tl.log2(total), mask=there)


@triton.jit
def tiles(start, window, parts, BLOCK_N: tl.constexpr):
    """How the tokens before `start` are shared: the first tile that new tokens see, how many tiles
    a part has, and how many parts there are; the last of them has the new tokens as well.
    """
    skipped = tl.maximum(start + 1 - window, 0) // BLOCK_N
    count = tl.maximum(tl.cdiv(start, BLOCK_N) - skipped, 1)
    each = tl.cdiv(count, parts)
    return skipped, each, tl.cdiv(count, each)


@triton.jit(do_not_specialize=["tokens", "total", "first", "kv_heads", "capacity", "window"])
def attend(
    out_ptr,  # [batch, total, heads, DIM]
    part_ptr,  # [batch, tokens, heads, parts, DIM] fp32
    sum_ptr,  # [batch, tokens, heads, parts] fp32
    keys_ptr,  # [batch, kv_heads, capacity, DIM]
    values_ptr,  # like keys
    qkv_ptr,  # [batch, total, heads + 2 * kv_heads, DIM]; tokens first, first + 1, ... are taken
    cos_ptr,  # [positions, DIM / 2] fp32
    sin_ptr,
    query_norm_ptr,  # [DIM]
    key_norm_ptr,
    start_ptr,  # [batch] int64: the position of token 0 of qkv
    tokens, total, first, kv_heads, capacity, window, eps, scale,
    QUERY_NORM: tl.constexpr,
    KEY_NORM: tl.constexpr,
    ONE: tl.constexpr,
    FP32_DOT: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Append the new tokens and attend. The cache is read before `start` only: what the program
    that appends writes, nobody reads in this launch.
    """
    b, h = tl.program_id(0) // kv_heads, tl.program_id(0) % kv_heads
    start = tl.load(start_ptr + b).to(tl.int32) + first
    skipped, each, parts = tiles(start, window, tl.num_programs(1), BLOCK_N)
    part = tl.program_id(1)
    if part >= parts:
        return
    q, t, place, there = queries(
        qkv_ptr, query_norm_ptr, cos_ptr, sin_ptr, b, h, start, tokens, total, first, kv_heads,
        eps, QUERY_NORM, GROUP, DIM, BLOCK_M, BLOCK_D,
    )  # fmt: skip
    d = tl.arange(0, BLOCK_D)
    channel, inside = halves(DIM, BLOCK_D)
    cells = tl.program_id(0).to(tl.int64) * capacity * DIM
    keys_ptr += cells
    values_ptr += cells
    total_weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
    largest = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    begin = (skipped + part * each) * BLOCK_N
    for token in range(begin, tl.minimum(begin + each * BLOCK_N, start), BLOCK_N):
        n = token + tl.arange(0, BLOCK_N)
        # Nothing else is read: a cell that no query sees may hold a NaN.
        used = ((n >= start + 1 - window) & (n < start))[:, None]
        at = n[:, None] * DIM
        key = tl.load(keys_ptr + at + channel[None, :], mask=used & inside[None, :], other=0.0)
        scores = dot(q, tl.trans(key), FP32_DOT) * scale
        seen = (n[None, :] < start) & (n[None, :] - start > t[:, None] - window)
        value = tl.load(values_ptr + at + d[None, :], mask=used & (d < DIM)[None, :], other=0.0)
        total_weight, largest, mixed = take(
            total_weight, largest, mixed, scores, seen, value, FP32_DOT
        )
    if part == parts - 1:
        wide = (GROUP + 2) * kv_heads
        row = (b * total + first) * wide + GROUP * kv_heads + h
        j = tl.arange(0, NEW)
        key, value = append(
            keys_ptr, values_ptr, qkv_ptr, cos_ptr, sin_ptr, key_norm_ptr, row, wide, kv_heads,
            start, tokens, start + j, eps, KEY_NORM, DIM, BLOCK_D,
        )  # fmt: skip
        scores = dot(q, tl.trans(key), FP32_DOT) * scale
        seen = (j[None, :] <= t[:, None]) & (j[None, :] > t[:, None] - window)
        total_weight, largest, mixed = take(
            total_weight, largest, mixed, scores, seen & (j < tokens)[None, :], value, FP32_DOT
        )
    keep(
        out_ptr, part_ptr, sum_ptr, total_weight, largest, mixed, place, there, tokens,
        kv_heads * GROUP, total, first, d, d < DIM, ONE, DIM,
    )  # fmt: skip


@triton.jit
def combine_parts(
    out_ptr, part_ptr, sum_ptr, row, to, parts, used, DIM: tl.constexpr, BLOCK_D: tl.constexpr
):
    """One query's result of its `used` first parts."""
    d = tl.arange(0, BLOCK_D)
    largest = tl.full((PARTS,), float("-inf"), dtype=tl.float32)
    for p0 in range(0, used, PARTS):
        p = p0 + tl.arange(0, PARTS)
        lse = tl.load(sum_ptr + row * parts + p, mask=p < used, other=float("-inf"))
        largest = tl.maximum(largest, lse)
    highest = tl.max(largest, axis=0)
    weight = tl.zeros((PARTS,), dtype=tl.float32)
    mixed = tl.zeros((BLOCK_D,), dtype=tl.float32)
    for p0 in range(0, used, PARTS):
        p = p0 + tl.arange(0, PARTS)
        lse = tl.load(sum_ptr + row * parts + p, mask=p < used, other=float("-inf"))
        share = tl.exp2(lse - highest)
        ok = (p < used)[:, None] & (d < DIM)[None, :]
        at = part_ptr + (row * parts + p)[:, None] * DIM + d[None, :]
        mixed += tl.sum(tl.load(at, mask=ok, other=0.0) * share[:, None], axis=0)
        weight += share
    out = (mixed / tl.sum(weight, axis=0)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + to * DIM + d, out, mask=d < DIM)


@triton.jit(do_not_specialize=["tokens", "total", "first", "heads", "window", "parts"])
def combine(
    out_ptr, part_ptr, sum_ptr, start_ptr, tokens, total, first, heads, window, parts,
    DIM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The parts of `attend` become its result; the arguments are those of `attend`."""
    row = tl.program_id(0).to(tl.int64)
    b, inner = row // (tokens * heads), row % (tokens * heads)
    start = tl.load(start_ptr + b).to(tl.int32) + first
    _, _, used = tiles(start, window, parts, BLOCK_N)
    to = (b * total + first) * heads + inner
    combine_parts(out_ptr, part_ptr, sum_ptr, row, to, parts, used, DIM, BLOCK_D)
