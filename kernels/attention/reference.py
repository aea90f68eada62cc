"""Attention over a cache, one query at a time in float64: slow and obviously right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels.attention import Heads
    from kernels.kv_codes import KVFormat


def attention(qkv: Tensor, keys: Tensor, values: Tensor, start: int, heads: Heads) -> Tensor:
    """As kernels.attention.attention, but in float64 and with new caches instead of written ones.

    Returns [batch, tokens, heads * dim]. The cache before `start` is taken as it is.
    """
    batch, tokens, _ = qkv.shape
    dim, group = heads.dim, heads.heads // heads.kv_heads
    past_keys, past_values = keys[:, :, :start].double(), values[:, :, :start].double()
    rows = qkv.double().view(batch, tokens, heads.heads + 2 * heads.kv_heads, dim)
    out = torch.zeros(batch, tokens, heads.heads, dim, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads.heads):
            kv = h // group
            own_keys, own_values = list(past_keys[b, kv]), list(past_values[b, kv])
            for t in range(tokens):
                at = start + t
                key = _normed(rows[b, t, heads.heads + kv], heads.key_norm, heads.eps)
                own_keys.append(_turned(key, heads.cos[at], heads.sin[at]))
                own_values.append(rows[b, t, heads.heads + heads.kv_heads + kv])
                query = _normed(rows[b, t, h], heads.query_norm, heads.eps)
                query = _turned(query, heads.cos[at], heads.sin[at])
                first = 0 if heads.window is None else max(0, at + 1 - heads.window)
                seen, weighed = torch.stack(own_keys[first:]), torch.stack(own_values[first:])
                out[b, t, h] = torch.softmax(seen @ query / math.sqrt(dim), dim=0) @ weighed
    return out.view(batch, tokens, heads.heads * dim)


def quantized(qkv: Tensor, format: KVFormat, heads: Heads) -> Tensor:
    """As kernels.attention.quantized.attention over an empty cache: [batch, tokens, heads * dim] in
    float64. Keys are rounded to qkv's dtype before they are quantized, as the ring keeps them.
    """
    batch, tokens, _ = qkv.shape
    dim, group, size = heads.dim, heads.heads // heads.kv_heads, format.group_size
    rows = qkv.double().view(batch, tokens, heads.heads + 2 * heads.kv_heads, dim)
    out = torch.zeros(batch, tokens, heads.heads, dim, dtype=torch.float64)
    for b in range(batch):
        for kv in range(heads.kv_heads):
            keys = torch.stack(
                [
                    _turned(
                        _normed(rows[b, t, heads.heads + kv], heads.key_norm, heads.eps),
                        heads.cos[t],
                        heads.sin[t],
                    )
                    for t in range(tokens)
                ]
            ).to(qkv.dtype)
            values = rows[b, :, heads.heads + heads.kv_heads + kv].to(qkv.dtype)
            old_keys, old_values = keys.double(), values.double()
            for token in range(0, tokens - size + 1, size):
                for channel in range(dim):
                    kept = _kept(keys[token : token + size, channel], format.bits)
                    old_keys[token : token + size, channel] = kept
                for t in range(token, token + size):
                    for c in range(0, dim, size):
                        old_values[t, c : c + size] = _kept(values[t, c : c + size], format.bits)
            for t in range(tokens):
                coded = format.coded(t + 1)
                first = 0 if heads.window is None else max(0, t + 1 - heads.window)
                seen = torch.cat((old_keys[:coded], keys[coded : t + 1].double()))[first:]
                weighed = torch.cat((old_values[:coded], values[coded : t + 1].double()))[first:]
                for h in range(kv * group, (kv + 1) * group):
                    query = _normed(rows[b, t, h], heads.query_norm, heads.eps)
                    query = _turned(query, heads.cos[t], heads.sin[t])
                    out[b, t, h] = torch.softmax(seen @ query / math.sqrt(dim), dim=0) @ weighed
    return out.view(batch, tokens, heads.heads * dim)


def _kept(group: Tensor, bits: int) -> Tensor:
    """What a group comes back as; codes are rounded in float32, which belongs to the format."""
    low, high = group.float().min(), group.float().max()
    step = ((high - low) / (2**bits - 1)).half().float()
    low = low.half().float()
    if step == 0:
        return low.double().expand(group.shape)
    codes = torch.round((group.float() - low) / step).clamp(0, 2**bits - 1)
    back: Tensor = codes.double() * step.double() + low.double()
    return back


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return x
    return x / torch.sqrt(x.pow(2).mean() + eps) * weight.double()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[0] // 2
    a, b, c, s = x[:half], x[half:], cos.double(), sin.double()
    return torch.cat((a * c - b * s, b * c + a * s))
