"""Triton kernels of the low-bit linear layer: few rows, many rows, and the end of a split sum.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only;
block sizes are guesses that autotuning chooses from. Owns the device code and its configurations;
layout.py owns the order of codes in memory, __init__.py the launches.

A code becomes a float without a conversion instruction: its bits are put into the mantissa of 2^23,
and one multiply-add takes the 2^23 and the zero away again. Few rows multiply on the vector units
in fp32 and are scaled once per group. Many rows are scaled first, rounded to x's dtype and given to
the matrix units with the weight as the left operand, which may come from registers.
"""

import triton
import triton.language as tl

from kernels import tuning

# KIND: how a code's value is found.
INTEGER, TABLE, E4M3, E5M2, E2M1, TERNARY, BINARY = range(7)


def _configs(rows: tuple[tuple[int, ...], ...]) -> list[triton.Config]:
    """BLOCK_N, BLOCKS, WAVES, warps, BLOCK_M and stages of each; 0 rows where the kernel has none.

    WAVES is how many programs are wanted on each multiprocessor when a sum over k is split.
    """
    configs = []
    for block_n, blocks, waves, warps, block_m, stages in rows[:1] if tuning.INTERPRETED else rows:
        meta = {"BLOCK_N": block_n, "BLOCKS": blocks, "WAVES": waves}
        if block_m:
            meta["BLOCK_M"] = block_m
        configs.append(triton.Config(meta, num_warps=warps, num_stages=stages))
    return configs


FEW = _configs(
    (
        (64, 2, 4, 4, 0, 1), (32, 2, 16, 1, 0, 1), (64, 2, 8, 2, 0, 1), (64, 4, 4, 4, 0, 1),
        (128, 2, 4, 4, 0, 1), (32, 4, 8, 4, 0, 1),
    )
)  # fmt: skip
MANY = _configs(
    (
        (64, 2, 4, 4, 16, 3), (64, 4, 4, 4, 16, 3), (64, 8, 2, 4, 16, 3), (128, 4, 2, 4, 16, 3),
        (64, 4, 2, 4, 32, 4), (128, 4, 2, 4, 32, 3), (64, 4, 2, 4, 64, 3), (128, 4, 1, 4, 64, 3),
        (128, 4, 1, 8, 64, 3), (128, 2, 1, 8, 128, 3), (128, 4, 1, 8, 128, 2),
        (128, 2, 1, 8, 256, 3), (256, 2, 1, 8, 128, 3),
    )
)  # fmt: skip


@triton.jit
def _value(
    word,
    table_ptr,
    P: tl.constexpr,
    WIDTH: tl.constexpr,
    KIND: tl.constexpr,
    CENTRE: tl.constexpr,
):
    """The value of the code at position P of each word, minus CENTRE for integers; fp32."""
    MASK: tl.constexpr = (1 << WIDTH) - 1
    if KIND == 1:
        value = tl.load(table_ptr + ((word >> (P * WIDTH)) & MASK).to(tl.int32))
    elif KIND == 2 or KIND == 3 or KIND == 4:
        # The code's exponent and mantissa in place of fp32's; the product corrects the bias and is
        # exact for its subnormal numbers too.
        MOVE: tl.constexpr = 20 if KIND == 2 else 21 if KIND == 3 else 22
        BIAS: tl.constexpr = 2.0**120 if KIND == 2 else 2.0**112 if KIND == 3 else 2.0**126
        SIGN: tl.constexpr = 1 << (WIDTH - 1)
        code = word >> (P * WIDTH)
        bits = ((code & SIGN) << (32 - WIDTH)) | ((code & (SIGN - 1)) << MOVE)
        value = bits.to(tl.float32, bitcast=True) * BIAS
    elif KIND == 5:
        code = ((word >> (P * WIDTH)) & MASK).to(tl.int32)
        value = tl.where((code & 1) != 0, 0, code - 1).to(tl.float32)
    elif KIND == 6:
        value = ((word >> (P * WIDTH)) & 1).to(tl.float32) * 2.0 - 1.0
    else:
        EACH: tl.constexpr = 23 // WIDTH
        BASE: tl.constexpr = P // EACH * EACH
        AT: tl.constexpr = (P - BASE) * WIDTH
        placed = ((word >> (BASE * WIDTH)) & (MASK << AT)) | 0x4B000000
        PART: tl.constexpr = 1.0 / (1 << AT)
        OFFSET: tl.constexpr = (1 << (23 - AT)) + CENTRE
        value = placed.to(tl.float32, bitcast=True) * PART - OFFSET
    return value


@triton.jit
def _scale(scale_ptr, step_ptr, low_ptr, group, cols, ok, n, DOUBLE: tl.constexpr):
    scale = tl.load(scale_ptr + group * n + cols, mask=ok, other=0.0).to(tl.float32)
    if DOUBLE:
        step = tl.load(step_ptr + cols // 16, mask=ok, other=0.0)
        scale = scale * step + tl.load(low_ptr + cols // 16, mask=ok, other=0.0)
    return scale


@triton.jit
def _store(
    total,
    y_ptr,
    partial_ptr,
    bias_ptr,
    residual_ptr,
    m,
    cols,
    ok,
    rows,
    n,
    PARTIAL: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """Either the partial sum of this split, or the finished y."""
    at = m.to(tl.int64) * n + cols
    if PARTIAL or tl.num_programs(1) > 1:
        split = tl.program_id(1).to(tl.int64)
        tl.store(partial_ptr + split * rows * n + at, total, mask=ok)
    else:
        if BIAS:
            total += tl.load(bias_ptr + cols, mask=ok, other=0.0).to(tl.float32)
        if RESIDUAL:
            total += tl.load(residual_ptr + at, mask=ok, other=0.0).to(tl.float32)
        tl.store(y_ptr + at, total.to(y_ptr.dtype.element_ty), mask=ok)


@triton.autotune(
    FEW,
    key=["n", "k", "ROWS", "WIDTH", "KIND", "GROUP", "ZERO"],
    do_bench=tuning.bench,
    cache_results=True,
)
@triton.jit
def few_rows(
    y_ptr,  # [M, N]
    partial_ptr,  # [splits, M, N] fp32
    x_ptr,  # [M, K]
    words_ptr,  # [B, N, 8] int32
    scale_ptr,  # [G, N]
    zero_ptr,  # [G, N]
    step_ptr,
    low_ptr,
    table_ptr,
    bias_ptr,
    residual_ptr,
    rows,
    n,
    k,
    blocks,
    WIDTH: tl.constexpr,
    KIND: tl.constexpr,
    CENTRE: tl.constexpr,
    GROUP: tl.constexpr,  # 0: one scale a row
    PARTS: tl.constexpr,  # stretches of a block that have one scale each
    ZERO: tl.constexpr,
    DOUBLE: tl.constexpr,
    PARTIAL: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKS: tl.constexpr,
    WAVES: tl.constexpr,
):
    EACH: tl.constexpr = 32 // WIDTH
    SPAN: tl.constexpr = EACH // PARTS
    each_split = tl.cdiv(tl.cdiv(blocks, tl.num_programs(1)), BLOCKS) * BLOCKS
    first = tl.program_id(1) * each_split
    last = tl.minimum(first + each_split, blocks)
    cols = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    # Dimensions: block of k, row of the weight, word of the block, row of x.
    b = tl.arange(0, BLOCKS)[:, None, None, None]
    c = cols[None, :, None, None]
    i = tl.arange(0, 8)[None, None, :, None]
    r = tl.arange(0, ROWS)[None, None, None, :]
    total = tl.zeros((BLOCKS, BLOCK_N, ROWS), dtype=tl.float32)
    for start in range(first, last, BLOCKS):
        block = start + b
        ok = (block < last) & (c < n)
        at = words_ptr + ((block.to(tl.int64) * n + c) * 8 + i)
        if KIND == 1:
            # Words in the order of the table's look-ups, which would be moved to it otherwise.
            at = tl.max_contiguous(at, [1, 1, 1, 1])
        word = tl.load(at, mask=ok, other=0).to(tl.uint32, bitcast=True)
        for part in tl.static_range(PARTS):
            group, fits = block * 0, ok
            if GROUP > 0:
                group = (block * (8 * EACH) + part * (8 * SPAN)) // GROUP
                fits = ok & (group * GROUP < k)
                scale = _scale(scale_ptr, step_ptr, low_ptr, group, c, fits, n, DOUBLE)
            if ZERO:
                zero = tl.load(zero_ptr + group * n + c, mask=fits, other=0).to(tl.float32)
            products = tl.zeros((BLOCKS, BLOCK_N, 8, ROWS), dtype=tl.float32)
            for place in tl.static_range(SPAN):
                column = block * (8 * EACH) + (part * SPAN + place) * 8 + i
                there = (r < rows) & (column < k) & (block < last)
                x = tl.load(x_ptr + r * k + column, mask=there, other=0.0).to(tl.float32)
                value = _value(word, table_ptr, part * SPAN + place, WIDTH, KIND, CENTRE)
                if ZERO:
                    value -= zero
                products += value * x
            sums = tl.sum(products, axis=2)
            total += sums * tl.reshape(scale, (BLOCKS, BLOCK_N, 1)) if GROUP > 0 else sums
    sums = tl.sum(total, axis=0)
    m, cols = tl.arange(0, ROWS)[None, :], cols[:, None]
    ok = (m < rows) & (cols < n)
    if GROUP == 0:
        sums *= _scale(scale_ptr, step_ptr, low_ptr, 0, cols, cols < n, n, DOUBLE)
    _store(
        sums, y_ptr, partial_ptr, bias_ptr, residual_ptr, m, cols, ok, rows, n,
        PARTIAL, BIAS, RESIDUAL,
    )  # fmt: skip


@triton.autotune(
    MANY,
    key=["n", "k", "rows_bucket", "WIDTH", "KIND", "GROUP", "ZERO"],
    prune_configs_by={"early_config_prune": tuning.early},
    do_bench=tuning.bench,
    cache_results=True,
)
@triton.jit(do_not_specialize=["rows_bucket"])
def many_rows(
    y_ptr,
    partial_ptr,
    x_ptr,
    words_ptr,
    scale_ptr,
    zero_ptr,
    step_ptr,
    low_ptr,
    table_ptr,
    bias_ptr,
    residual_ptr,
    rows,
    n,
    k,
    blocks,
    rows_bucket,
    WIDTH: tl.constexpr,
    KIND: tl.constexpr,
    CENTRE: tl.constexpr,
    GROUP: tl.constexpr,
    PARTS: tl.constexpr,
    ZERO: tl.constexpr,
    DOUBLE: tl.constexpr,
    PARTIAL: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr,
    FP32_DOT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKS: tl.constexpr,
    WAVES: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    EACH: tl.constexpr = 32 // WIDTH
    SPAN: tl.constexpr = EACH // PARTS
    # One scale for each row of the whole tile.
    UNIFORM: tl.constexpr = GROUP > 0 and GROUP % (8 * EACH * BLOCKS) == 0
    each_split = tl.cdiv(tl.cdiv(blocks, tl.num_programs(1)), BLOCKS) * BLOCKS
    first = tl.program_id(1) * each_split
    last = tl.minimum(first + each_split, blocks)
    # Programs that share rows of the weight run beside each other.
    tiles_m = tl.cdiv(rows, BLOCK_M)
    m = (tl.program_id(0) % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = (tl.program_id(0) // tiles_m) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = cols[:, None]
    j = tl.arange(0, 8 * BLOCKS)
    x_row = x_ptr + m.to(tl.int64)[:, None] * k
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for start in range(first, last, BLOCKS):
        block = start + j // 8
        ok = (c < n) & (block < last)[None, :]
        at = (block.to(tl.int64)[None, :] * n + c) * 8 + (j % 8)[None, :]
        word = tl.load(words_ptr + at, mask=ok, other=0).to(tl.uint32, bitcast=True)
        for part in tl.static_range(PARTS):
            if UNIFORM or GROUP == 0:
                group = start * (8 * EACH) // GROUP if GROUP > 0 else 0
                fits = c < n
            else:
                group = (block[None, :] * (8 * EACH) + part * (8 * SPAN)) // GROUP
                fits = ok & (group * GROUP < k)
            if GROUP > 0:
                scale = _scale(scale_ptr, step_ptr, low_ptr, group, c, fits, n, DOUBLE)
            if ZERO:
                zero = tl.load(zero_ptr + group * n + c, mask=fits, other=0).to(tl.float32)
            for place in tl.static_range(SPAN):
                column = block * (8 * EACH) + (part * SPAN + place) * 8 + j % 8
                there = (m < rows)[:, None] & ((column < k) & (block < last))[None, :]
                x = tl.load(x_row + column[None, :], mask=there, other=0.0)
                value = _value(word, table_ptr, part * SPAN + place, WIDTH, KIND, CENTRE)
                if ZERO:
                    value -= zero
                if GROUP > 0:
                    value *= scale
                value = value.to(x.dtype)
                if FP32_DOT:
                    x, value = x.to(tl.float32), value.to(tl.float32)
                total = tl.dot(value, tl.trans(x), total, input_precision=PRECISION)
    if GROUP == 0:
        total *= _scale(scale_ptr, step_ptr, low_ptr, 0, c, c < n, n, DOUBLE)
    m = m[None, :]
    ok = (m < rows) & (c < n)
    _store(
        total, y_ptr, partial_ptr, bias_ptr, residual_ptr, m, c, ok, rows, n,
        PARTIAL, BIAS, RESIDUAL,
    )  # fmt: skip


@triton.jit
def finish(
    y_ptr,  # [M, N], or [M, N / 2] when GATED
    partial_ptr,  # [splits, M, N] fp32
    bias_ptr,
    residual_ptr,
    rows,
    n,
    wide,  # columns of y
    splits,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = cols < wide
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    up = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in range(0, splits):
        at = partial_ptr + (split * rows + row) * n + cols
        total += tl.load(at, mask=ok, other=0.0)
        if GATED:
            up += tl.load(at + wide, mask=ok, other=0.0)
    if BIAS:
        total += tl.load(bias_ptr + cols, mask=ok, other=0.0).to(tl.float32)
        if GATED:
            up += tl.load(bias_ptr + wide + cols, mask=ok, other=0.0).to(tl.float32)
    if GATED:
        total = total / (1.0 + tl.exp(-total)) * up
    if RESIDUAL:
        total += tl.load(residual_ptr + row * wide + cols, mask=ok, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * wide + cols, total.to(y_ptr.dtype.element_ty), mask=ok)
