"""Triton kernels of decode attention: attend to a part of the context, combine the parts.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
Owns the device code that caches in 16 bit and in codes share, but for the new tokens (append.py);
gpu.py and kv_gpu.py launch it.

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
    query_ptr, b, h, tokens, kv_heads, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rotated queries [BLOCK_M, BLOCK_D] of a tile, and each row's token, place in `query` [batch,
    tokens, heads] and whether it is there.
    """
    r = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    t = r // GROUP
    place = (b * tokens + t) * (kv_heads * GROUP) + h * GROUP + r % GROUP
    there = t < tokens
    d = tl.arange(0, BLOCK_D)
    ok = there[:, None] & (d < DIM)[None, :]
    q = tl.load(query_ptr + place.to(tl.int64)[:, None] * DIM + d[None, :], mask=ok, other=0.0)
    return q, t, place, there


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
def tiles(start, tokens, window, BLOCK_N: tl.constexpr):
    """The first tile of tokens that a row's new tokens see, and how many there are."""
    skipped = tl.maximum(start + 1 - window, 0) // BLOCK_N
    return skipped, tl.cdiv(start + tokens, BLOCK_N) - skipped


@triton.jit(do_not_specialize=["tokens", "total", "first", "kv_heads", "capacity", "window"])
def attend(
    out_ptr,  # [batch, total, heads, DIM]
    part_ptr,  # [batch, tokens, heads, parts, DIM] fp32
    sum_ptr,  # [batch, tokens, heads, parts] fp32
    query_ptr,  # [batch, tokens, heads, DIM]
    keys_ptr,  # [batch, kv_heads, capacity, DIM]
    values_ptr,  # like keys
    start_ptr,  # [batch] int64
    tokens, total, first, kv_heads, capacity, window, scale,
    ONE: tl.constexpr,
    FP32_DOT: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    b, h = tl.program_id(0) // kv_heads, tl.program_id(0) % kv_heads
    start = tl.load(start_ptr + b).to(tl.int32) + first
    end = start + tokens
    skipped, count = tiles(start, tokens, window, BLOCK_N)
    each = tl.cdiv(count, tl.num_programs(1))
    begin = (skipped + tl.program_id(1) * each) * BLOCK_N
    stop = tl.minimum(begin + each * BLOCK_N, end)
    if begin >= stop:
        return
    q, t, place, there = queries(query_ptr, b, h, tokens, kv_heads, GROUP, DIM, BLOCK_M, BLOCK_D)
    at = start + t
    d = tl.arange(0, BLOCK_D)
    cells = tl.program_id(0).to(tl.int64) * capacity * DIM
    keys_ptr += cells
    values_ptr += cells
    total_weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
    largest = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for token in range(begin, stop, BLOCK_N):
        n = token + tl.arange(0, BLOCK_N)
        # Nothing else is read: a cell that no query sees may hold a NaN.
        used = (n >= start + 1 - window) & (n < end)
        ok = used[:, None] & (d < DIM)[None, :]
        key = tl.load(keys_ptr + n[:, None] * DIM + d[None, :], mask=ok, other=0.0)
        scores = dot(q, tl.trans(key), FP32_DOT) * scale
        seen = (n[None, :] <= at[:, None]) & (n[None, :] > at[:, None] - window)
        value = tl.load(values_ptr + n[:, None] * DIM + d[None, :], mask=ok, other=0.0)
        total_weight, largest, mixed = take(
            total_weight, largest, mixed, scores, seen, value, FP32_DOT
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
    _, count = tiles(start, tokens, window, BLOCK_N)
    used = tl.cdiv(count, tl.cdiv(count, parts))
    to = (b * total + first) * heads + inner
    combine_parts(out_ptr, part_ptr, sum_ptr, row, to, parts, used, DIM, BLOCK_D)
