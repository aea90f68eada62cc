"""The kernel "triton": a step of few tokens over keys and values in 16 or 32 bit; bound only.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only.
Owns the sizes of tiles and parts and the launches; the device code is append.py's and device.py's.
Nothing is autotuned: a step writes the cache in place, and the sizes follow from the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
import triton
from torch import Tensor

from kernels import calls, cuda
from kernels.attention import OP, Heads, device
from kernels.attention.append import NEW
from kernels.registry import KernelUnavailable

READS_START_ON_DEVICE = True
MOST_DIM = 512
# Programs wanted on each multiprocessor, parts of one context at most, and tiles of a part at
# least: combining parts is a launch more, which a short context does not earn.
PROGRAMS, MOST_PARTS, PART_TILES = 2, 128, 4
ALL = 1 << 30
# Scores are powers of two.
LOG2_E = math.log2(math.e)
_shared: WeakValueDictionary[tuple[object, ...], Tensor] = WeakValueDictionary()


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


@dataclass(frozen=True)
class Tiles:
    """Sizes of the tiles of `attend`: `m` queries by `n` tokens by `d` channels, and the grid:
    programs for the queries of a head, and parts of the context.
    """

    m: int
    n: int
    d: int
    row_tiles: int
    parts: int


def tiles(qkv: Tensor, heads: Heads, tokens: int, n: int, d: int, capacity: int) -> Tiles:
    """For steps of `tokens` tokens over a cache of `capacity`, in tiles of `n` tokens.

    As many parts as give every multiprocessor its programs, none of few tiles at full length. Wide
    heads have fewer queries in a tile, whose sums lie in registers.
    """
    rows, units = tokens * (heads.heads // heads.kv_heads), len(qkv) * heads.kv_heads
    most = 16 if is_wide(qkv, d) else 64
    m = min(most, max(16, triton.next_power_of_2(rows)))
    row_tiles = triton.cdiv(rows, m)
    wanted = PROGRAMS * cuda.processors(qkv.device) // (units * row_tiles)
    span = min(capacity, (heads.window or ALL) + tokens + 2 * n)
    parts = max(1, min(wanted, MOST_PARTS, span // (n * PART_TILES)))
    return Tiles(m, n, d, row_tiles, parts)


def is_wide(qkv: Tensor, d: int) -> bool:
    """Whether heads of `d` channels fill the registers of four warps."""
    return d * qkv.element_size() >= 512


def tile_width(dim: int) -> int:
    """Channels of a tile; KernelUnavailable for heads that none of these kernels takes."""
    if dim % 2 or dim > MOST_DIM:
        raise KernelUnavailable(
            f"The Triton kernels of attention take heads of an even width up to {MOST_DIM}, not "
            f"{dim}; name others, as TRIMTAB_KERNEL=attention=torch-sdpa."
        )
    return max(16, triton.next_power_of_2(dim))


def on_device(start: Tensor, at: torch.device) -> tuple[Tensor, Callable[[], object]]:
    """`start` where the kernels read it, and a call that brings it there from the host."""
    if start.device == at:
        return start, lambda: None
    copy = torch.empty_like(start, device=at)
    return copy, lambda: copy.copy_(start)


def norms(heads: Heads, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """The norms of queries and keys in qkv's dtype; where there is none, qkv, which is not read."""
    pair = (heads.query_norm, heads.key_norm)
    query, key = (qkv if norm is None else norm.to(qkv.dtype).contiguous() for norm in pair)
    return query, key


def prepare(
    qkv: Tensor, keys: Tensor, values: Tensor, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """See kernels.attention.prepare; any of FLOATS, contiguous."""
    batch, tokens, _ = qkv.shape
    capacity, dim, group = keys.shape[2], heads.dim, heads.heads // heads.kv_heads
    wide = tile_width(dim)
    # A tile of keys has 16 KiB in 16 bit, and two of keys and of values are on their way while one
    # is multiplied. In fp32 the vector units multiply, from registers.
    many = max(16, min(64, 8192 // wide // (qkv.element_size() // 2) ** 2))
    warps, passes = 8 if is_wide(qkv, wide) else 4, passes_of(tokens)
    size, window = tiles(qkv, heads, passes[0][1], many, wide, capacity), heads.window or ALL
    at, bring = on_device(start, qkv.device)
    query_norm, key_norm = norms(heads, qkv)
    mixed, sums = between(qkv, heads, passes[0][1], size.parts)

    def step() -> None:
        bring()
        with cuda.on(qkv.device):
            for first, count in passes:
                launch(first, count)

    def launch(first: int, count: int) -> None:
        calls.count(OP, "triton")
        device.attend[(batch * heads.kv_heads, size.parts, size.row_tiles)](
            out, mixed, sums, keys, values, qkv, heads.cos, heads.sin, query_norm, key_norm, at,
            count, tokens, first, heads.kv_heads, capacity, window, heads.eps,
            LOG2_E / math.sqrt(dim), QUERY_NORM=heads.query_norm is not None,
            KEY_NORM=heads.key_norm is not None, ONE=size.parts == 1,
            FP32_DOT=qkv.device.type == "cpu", GROUP=group, DIM=dim, BLOCK_M=size.m,
            BLOCK_N=size.n, BLOCK_D=size.d, num_warps=warps, num_stages=3,
            enable_fp_fusion=False,
        )  # fmt: skip
        if size.parts > 1:
            device.combine[(batch * count * heads.heads,)](
                out, mixed, sums, at, count, tokens, first, heads.heads, window, size.parts,
                DIM=dim, BLOCK_N=size.n, BLOCK_D=size.d, num_warps=2,
            )  # fmt: skip

    return step


def passes_of(tokens: int) -> list[tuple[int, int]]:
    """The first token and the number of tokens of each pass; the kernels take NEW at once."""
    most = NEW.value
    return [(first, min(most, tokens - first)) for first in range(0, tokens, most)]


def room(shape: tuple[int, ...], dtype: torch.dtype, at: torch.device) -> Tensor:
    """Memory between the kernels of a step, one for all layers: they run one after another."""
    key = (shape, dtype, at)
    tensor = _shared.get(key)
    if tensor is None:
        tensor = _shared[key] = torch.empty(shape, dtype=dtype, device=at)
    return tensor


def between(qkv: Tensor, heads: Heads, tokens: int, parts: int) -> tuple[Tensor, Tensor]:
    """Room for the mixtures [batch, tokens, heads, parts, dim] and the log-sum-exps [..., parts] of
    several parts, fp32; qkv, which is not written, where there is one.
    """
    if parts == 1:
        return qkv, qkv
    shape = (len(qkv), tokens, heads.heads, parts)
    mixed = room((*shape, heads.dim), torch.float32, qkv.device)
    return mixed, room(shape, torch.float32, qkv.device)
