"""The kernels "triton-kv8", "triton-kv4" and "triton-kv2": a step over keys and values in codes.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only.
Owns the launches; the device code is that of append.py, kv_encode.py and kv_device.py. A prompt is
read in passes of PASS_TOKENS. Codes are those of kv_torch bit for bit where the keys in the ring
are; norms of heads are summed in another order there, and a code may be the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor

from kernels import calls, cuda
from kernels.attention import OP, Heads, Start, kv_device, kv_encode
from kernels.attention.gpu import (
    ALL,
    LOG2_E,
    between,
    norms,
    on_device,
    passes_of,
    tile_width,
    tiles,
)
from kernels.kv_codes import KVFormat

if TYPE_CHECKING:
    from kernels.kv_codes.codes import KVCodes

READS_START_ON_DEVICE = True


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def run(qkv: Tensor, cache: KVCodes, start: Start, heads: Heads, out: Tensor) -> None:
    """See kernels.attention.quantized.attention; checks nothing."""
    if isinstance(start, int):
        start = torch.full((len(qkv),), start, device=qkv.device)
    prepare(qkv, cache, start, heads, out)()


def prepare(
    qkv: Tensor, cache: KVCodes, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """See kernels.attention.quantized.prepare; any of FLOATS, contiguous, any number of tokens."""
    batch, tokens, _ = qkv.shape
    form, dim, group = cache.format, heads.dim, heads.heads // heads.kv_heads
    size, window, units = form.group_size, heads.window or ALL, batch * heads.kv_heads
    slots, blocks = cache.keys.shape[2], cache.key_codes.shape[2]
    wide = max(size, tile_width(dim))
    passes = passes_of(tokens)
    plan = tiles(qkv, heads, passes[0][1], size, wide, cache.capacity)
    warps, stages = launch_of(form, wide, qkv.element_size())
    at, bring = on_device(start, qkv.device)
    query_norm, key_norm = norms(heads, qkv)
    mixed, sums = between(qkv, heads, passes[0][1], plan.parts)
    stored = (
        cache.key_codes, cache.key_scale, cache.value_codes, cache.value_scale, cache.keys,
        cache.values,
    )  # fmt: skip

    def step() -> None:
        bring()
        with cuda.on(qkv.device):
            for first, count in passes:
                launch(first, count)

    def launch(first: int, count: int) -> None:
        calls.count(OP, f"triton-kv{form.bits}")
        kv_encode.bring_in[(units, 1 + (size // kv_encode.SOME.value if blocks else 0))](
            *stored, qkv, heads.cos, heads.sin, key_norm, at, count, tokens, first,
            heads.kv_heads, slots, blocks, form.residual, heads.eps,
            KEY_NORM=heads.key_norm is not None, GROUP=group, BITS=form.bits, SIZE=size, DIM=dim,
            BLOCK_D=wide, BLOCK_B=max(16, triton.next_power_of_2(form.packed(dim))),
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        kv_device.attend_codes[(units, plan.parts, plan.row_tiles)](
            out, mixed, sums, *stored, qkv, heads.cos, heads.sin, query_norm, at, count, tokens,
            first, heads.kv_heads, slots, blocks, form.residual, window, heads.eps,
            LOG2_E / math.sqrt(dim), QUERY_NORM=heads.query_norm is not None,
            ONE=plan.parts == 1, FP32_DOT=qkv.device.type == "cpu", GROUP=group, BITS=form.bits,
            SIZE=size, DIM=dim, BLOCK_M=plan.m, BLOCK_D=wide, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        if plan.parts > 1:
            kv_device.combine_codes[(batch * count * heads.heads,)](
                out, mixed, sums, at, count, tokens, first, heads.heads, form.residual, window,
                plan.parts, SIZE=size, DIM=dim, BLOCK_D=wide, num_warps=2,
            )  # fmt: skip

    return step


def launch_of(form: KVFormat, wide: int, item: int) -> tuple[int, int]:
    """Warps and stages for heads of `wide` channels in numbers of `item` bytes: loads of 16 bytes
    for a thread, and what fits registers and shared memory.
    """
    size = form.group_size
    tile_bytes = size * wide * item
    stages = 3 if tile_bytes <= 1 << 14 else 2 if tile_bytes <= 1 << 15 else 1
    return (8 if size * wide * form.bits >= 1 << 15 else 4), stages
