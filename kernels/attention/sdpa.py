"""Attention over a cache with torch's scaled_dot_product_attention, for any number of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels.attention import Heads


def attention(qkv: Tensor, keys: Tensor, values: Tensor, start: int, heads: Heads) -> Tensor:
    """See kernels.attention.attention; checks nothing."""
    batch, tokens, _ = qkv.shape
    end = start + tokens
    query, key, value = parts(qkv, start, heads)
    keys[:, :, start:end] = key
    values[:, :, start:end] = value
    first = 0 if heads.window is None else max(0, start + 1 - heads.window)
    mask = visible(tokens, start, first, heads.window, qkv.device)
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        keys[:, :, first:end],
        values[:, :, first:end],
        attn_mask=mask,
        is_causal=mask is None and tokens > 1,
        enable_gqa=heads.heads != heads.kv_heads,
    )
    return out.transpose(1, 2).reshape(batch, tokens, heads.heads * heads.dim)


def parts(qkv: Tensor, start: int, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """(query, key, value) [batch, heads, tokens, dim] of qkv [batch, tokens, ...], queries and keys
    normed where the model does that and rotated to their positions from `start` on.
    """
    batch, tokens, _ = qkv.shape
    stacked = qkv.reshape(batch, tokens, heads.heads + 2 * heads.kv_heads, heads.dim)
    sizes = [heads.heads, heads.kv_heads, heads.kv_heads]
    query, key, value = torch.split(stacked.transpose(1, 2), sizes, dim=1)
    if heads.query_norm is not None:
        query = torch.nn.functional.rms_norm(query, (heads.dim,), heads.query_norm, heads.eps)
    if heads.key_norm is not None:
        key = torch.nn.functional.rms_norm(key, (heads.dim,), heads.key_norm, heads.eps)
    cos, sin = heads.cos[start : start + tokens], heads.sin[start : start + tokens]
    return rotate(query, cos, sin), rotate(key, cos, sin), value


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + dim / 2]) of [..., tokens, dim] by the given angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def visible(
    tokens: int, start: int, first: int, window: int | None, device: torch.device
) -> Tensor | None:
    """Bool [tokens, start + tokens - first], or None where torch's own causal mask is the same."""
    if start == 0 and (window is None or tokens <= window):
        return None
    at = torch.arange(start, start + tokens, device=device)[:, None]
    past = torch.arange(first, start + tokens, device=device)[None]
    mask = past <= at
    return mask if window is None else mask & (past > at - window)
