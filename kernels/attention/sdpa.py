"""Attention over a cache with torch's scaled_dot_product_attention, for any number of tokens.

Where `start` is known on the host, only that much of the cache is read; a `start` on the device
masks the whole capacity, so that nothing waits for it. Cells of the cache that were never written
must then be finite: a value counts 0 times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels import calls
from kernels.attention import OP, Heads, Start, common

READS_START_ON_DEVICE = True


def attention(qkv: Tensor, keys: Tensor, values: Tensor, start: Start, heads: Heads) -> Tensor:
    """See kernels.attention.attention; checks nothing."""
    calls.count(OP, "torch-sdpa")
    if isinstance(start, Tensor):
        end = int(start.max()) + qkv.shape[1]
        return _from_each(qkv, keys, values, start.to(qkv.device), end, heads)
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


def prepare(
    qkv: Tensor, keys: Tensor, values: Tensor, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """See kernels.attention.prepare."""

    def step() -> None:
        out.copy_(attention(qkv, keys, values, common(start), heads))

    def step_on_device() -> None:
        calls.count(OP, "torch-sdpa")
        out.copy_(_from_each(qkv, keys, values, start, keys.shape[2], heads))

    return step if start.device.type == "cpu" else step_on_device


def _from_each(
    qkv: Tensor, keys: Tensor, values: Tensor, start: Tensor, end: int, heads: Heads
) -> Tensor:
    """Rows at positions of their own: `start` int64 [batch] on qkv's device. The first `end` tokens
    of the cache are masked and read.
    """
    batch, tokens, _ = qkv.shape
    at = start[:, None] + torch.arange(tokens, device=qkv.device)
    query, key, value = parts(qkv, at, heads)
    rows = torch.arange(batch, device=qkv.device)[:, None]
    keys[rows, :, at], values[rows, :, at] = key.transpose(1, 2), value.transpose(1, 2)
    past = torch.arange(end, device=qkv.device)
    mask = past <= at[..., None]
    if heads.window is not None:
        mask &= past > at[..., None] - heads.window
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        keys[:, :, :end],
        values[:, :, :end],
        attn_mask=mask[:, None],
        enable_gqa=heads.heads != heads.kv_heads,
    )
    return out.transpose(1, 2).reshape(batch, tokens, heads.heads * heads.dim)


def parts(qkv: Tensor, start: Start, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """(query, key, value) [batch, heads, tokens, dim] of qkv [batch, tokens, ...], queries and keys
    normed where the model does that and rotated to their positions: from `start` on, or those of
    int64 [batch, tokens].
    """
    batch, tokens, _ = qkv.shape
    stacked = qkv.reshape(batch, tokens, heads.heads + 2 * heads.kv_heads, heads.dim)
    sizes = [heads.heads, heads.kv_heads, heads.kv_heads]
    query, key, value = torch.split(stacked.transpose(1, 2), sizes, dim=1)
    if heads.query_norm is not None:
        query = torch.nn.functional.rms_norm(query, (heads.dim,), heads.query_norm, heads.eps)
    if heads.key_norm is not None:
        key = torch.nn.functional.rms_norm(key, (heads.dim,), heads.key_norm, heads.eps)
    if isinstance(start, Tensor):
        cos, sin = heads.cos[start][:, None], heads.sin[start][:, None]
    else:
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
