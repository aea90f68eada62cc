"""The kernels "triton-kv8", "triton-kv4" and "triton-kv2": a step over keys and values in codes.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only.
Owns the launches; the device code is that of append.py, kv_encode.py and kv_device.py. A prompt is
read in passes of PASS_TOKENS, as a step is. Codes are those of kv_torch bit for bit where the keys
in the ring are; norms of heads are summed in another order there, and a code may be the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor

from kernels import calls, cuda
from kernels.attention import OP, Heads, Start, append, kv_device, kv_encode
from kernels.attention.gpu import ALL, LOG2_E, between, norms, on_device, tile_width, tiles
from kernels.kv_codes import PASS_TOKENS, KVFormat

if TYPE_CHECKING:
    from kernels.kv_codes.codes import KVCodes

READS_START_ON_DEVICE = True


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def prepare(
    qkv: Tensor, cache: KVCodes, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """See kernels.attention.quantized.prepare; any of FLOATS, contiguous."""
    at, bring = on_device(start, qkv.device)
    launch = _bind(qkv, cache, at, heads, out, qkv.shape[1])

    def step() -> None:
        bring()
        launch(0)

    return step


def run(qkv: Tensor, cache: KVCodes, start: Start, heads: Heads, out: Tensor) -> None:
    """See kernels.attention.quantized.attention; checks nothing."""
    if isinstance(start, int):
        start = torch.full((len(qkv),), start, device=qkv.device)
    start, total = start.to(qkv.device), qkv.shape[1]
    whole = total // PASS_TOKENS * PASS_TOKENS
    for begin, end, tokens in ((0, whole, PASS_TOKENS), (whole, total, total - whole)):
        if begin < end:
            launch = _bind(qkv, cache, start, heads, out, tokens)
            for first in range(begin, end, tokens):
                launch(first)


def _bind(
    qkv: Tensor, cache: KVCodes, start: Tensor, heads: Heads, out: Tensor, tokens: int
) -> Callable[[int], None]:
    """A call that takes `tokens` tokens of qkv from the given one on."""
    batch, total, _ = qkv.shape
    form, dim, group = cache.format, heads.dim, heads.heads // heads.kv_heads
    size, window = form.group_size, heads.window or ALL
    slots, blocks = cache.keys.shape[2], cache.key_codes.shape[2]
    wide = max(size, tile_width(dim))
    plan = tiles(qkv, heads, tokens, size, wide, cache.capacity)
    warps, stages = launch_of(form, wide, qkv.element_size())
    query_norm, key_norm = norms(heads, qkv)
    query, mixed, sums = between(qkv, heads, tokens, plan.parts)
    units, rows = batch * heads.kv_heads, batch * tokens * heads.heads
    codes = (cache.key_codes, cache.key_scale, cache.value_codes, cache.value_scale)
    ring = (cache.keys, cache.values)

    def launch(first: int) -> None:
        calls.count(OP, f"triton-kv{form.bits}")
        with cuda.on(qkv.device):
            append.append[(batch * tokens, heads.heads + heads.kv_heads)](
                query, *ring, qkv, heads.cos, heads.sin, query_norm, key_norm, start,
                tokens, total, first, heads.heads, heads.kv_heads, slots, heads.eps,
                QUERY_NORM=heads.query_norm is not None, KEY_NORM=heads.key_norm is not None,
                RING=True, DIM=dim, BLOCK_H=triton.next_power_of_2(dim // 2), BLOCK_D=wide,
                num_warps=1, enable_fp_fusion=False,
            )  # fmt: skip
            if blocks:
                kv_encode.encode[(units, 1 + size // kv_encode.SOME.value)](
                    *codes, *ring, start, tokens, first, heads.kv_heads, slots, blocks,
                    form.residual, BITS=form.bits, SIZE=size, DIM=dim, BLOCK_D=wide,
                    BLOCK_B=max(16, triton.next_power_of_2(form.packed(dim))),
                    num_warps=4, enable_fp_fusion=False,
                )  # fmt: skip
            kv_device.attend_codes[(units, plan.parts, plan.row_tiles)](
                out, mixed, sums, query, *codes, *ring, start, tokens, total, first,
                heads.kv_heads, slots, blocks, form.residual, window,
                LOG2_E / math.sqrt(dim), ONE=plan.parts == 1,
                FP32_DOT=qkv.device.type == "cpu", GROUP=group, BITS=form.bits, SIZE=size, DIM=dim,
                BLOCK_M=plan.m, BLOCK_D=wide, num_warps=warps, num_stages=stages,
            )  # fmt: skip
            if plan.parts > 1:
                kv_device.combine_codes[(rows,)](
                    out, mixed, sums, start, tokens, total, first, heads.heads, form.residual,
                    window, plan.parts, SIZE=size, DIM=dim, BLOCK_D=wide, num_warps=2,
                )  # fmt: skip

    return launch


def launch_of(form: KVFormat, wide: int, item: int) -> tuple[int, int]:
    """Warps and stages for heads of `wide` channels in numbers of `item` bytes: loads of 16 bytes
    for a thread, and what fits registers and shared memory.
    """
    size = form.group_size
    tile_bytes = size * wide * item
    stages = 3 if tile_bytes <= 1 << 14 else 2 if tile_bytes <= 1 << 15 else 1
    return (8 if size * wide * form.bits >= 1 << 15 else 4), stages
