"""Attention over codes with torch, wherever torch runs: decodes a layer's codes for each pass.

A cache in codes saves memory here, not time; the C++ kernel never has a decoded copy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels import calls
from kernels.attention import OP, Heads, Start, common
from kernels.attention.sdpa import parts
from kernels.kv_codes import PASS_TOKENS
from kernels.kv_codes.codes import (
    KVCodes,
    decode_keys,
    decode_values,
    encode_keys,
    encode_values,
)


def run(qkv: Tensor, cache: KVCodes, start: Start, heads: Heads, out: Tensor) -> None:
    """See kernels.attention.quantized.attention; checks nothing."""
    calls.count(OP, f"torch-kv{cache.format.bits}")
    if isinstance(start, int):
        _from(qkv, cache, start, heads, out)
        return
    # Which tokens are codes differs from row to row.
    for row, at in enumerate(start.tolist()):
        rows = slice(row, row + 1)
        _from(qkv[rows], cache.rows(rows), at, heads, out[rows])


def prepare(
    qkv: Tensor, cache: KVCodes, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """See kernels.attention.quantized.prepare."""

    def step() -> None:
        run(qkv, cache, common(start), heads, out)

    return step


def _from(qkv: Tensor, cache: KVCodes, start: int, heads: Heads, out: Tensor) -> None:
    for first in range(0, qkv.shape[1], PASS_TOKENS):
        part = slice(first, first + PASS_TOKENS)
        out[:, part] = _pass(qkv[:, part], cache, start + first, heads)


def _pass(qkv: Tensor, cache: KVCodes, start: int, heads: Heads) -> Tensor:
    batch, tokens, _ = qkv.shape
    end = start + tokens
    query, key, value = parts(qkv, start, heads)
    append(cache, start, key, value)
    out = torch.empty_like(query)
    # Neighbouring queries that see the same tokens as codes go together.
    at = start
    while at < end:
        coded = cache.format.coded(at + 1)
        stop = at + 1
        while stop < end and cache.format.coded(stop + 1) == coded:
            stop += 1
        first = 0 if heads.window is None else max(0, at + 1 - heads.window)
        keys, values = read(cache, first, stop, coded)
        rows = torch.arange(at, stop, device=qkv.device)[:, None]
        past = torch.arange(first, stop, device=qkv.device)[None]
        mask = past <= rows
        if heads.window is not None:
            mask &= past > rows - heads.window
        out[:, :, at - start : stop - start] = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, at - start : stop - start],
            keys,
            values,
            attn_mask=mask,
            enable_gqa=heads.heads != heads.kv_heads,
        )
        at = stop
    return out.transpose(1, 2).reshape(batch, tokens, heads.heads * heads.dim)


def append(cache: KVCodes, start: int, keys: Tensor, values: Tensor) -> None:
    """Put new keys and values [..., tokens, dim] into the ring at position `start`, and blocks that
    are complete into codes.
    """
    form, end = cache.format, start + keys.shape[-2]
    slots = torch.arange(start, end, device=keys.device) % cache.keys.shape[-2]
    cache.keys[..., slots, :], cache.values[..., slots, :] = keys, values
    size = form.group_size
    for block in range(form.coded(start) // size, form.coded(end) // size):
        slots = torch.arange(block * size, (block + 1) * size, device=keys.device)
        slots = slots % cache.keys.shape[-2]
        codes, scale = encode_keys(cache.keys[..., slots, :], form)
        cache.key_codes[..., block, :, :], cache.key_scale[..., block, :, :] = codes, scale
        codes, scale = encode_values(cache.values[..., slots, :], form)
        cache.value_codes[..., block, :, :] = codes
        cache.value_scale[..., block, :, :, :] = scale


def read(cache: KVCodes, first: int, end: int, coded: int) -> tuple[Tensor, Tensor]:
    """Keys and values [..., end - first, dim] of the ring's dtype: decoded before position `coded`,
    from the ring behind it.
    """
    size, dtype = cache.format.group_size, cache.keys.dtype
    slots = torch.arange(max(coded, first), end, device=cache.keys.device) % cache.keys.shape[-2]
    keys, values = cache.keys[..., slots, :], cache.values[..., slots, :]
    if first >= coded:
        return keys, values
    blocks = slice(first // size, coded // size)
    old_keys = decode_keys(
        cache.key_codes[..., blocks, :, :], cache.key_scale[..., blocks, :, :], cache.format
    )
    old_values = decode_values(
        cache.value_codes[..., blocks, :, :],
        cache.value_scale[..., blocks, :, :, :],
        cache.format,
        cache.dim,
    )
    skipped = first % size
    old = (codes.flatten(-3, -2)[..., skipped:, :].to(dtype) for codes in (old_keys, old_values))
    return torch.cat((next(old), keys), dim=-2), torch.cat((next(old), values), dim=-2)
