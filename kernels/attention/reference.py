"""Attention over a cache, one query at a time in float64: slow and obviously right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels.attention import Heads


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


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return x
    return x / torch.sqrt(x.pow(2).mean() + eps) * weight.double()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[0] // 2
    a, b, c, s = x[:half], x[half:], cos.double(), sin.double()
    return torch.cat((a * c - b * s, b * c + a * s))
