"""Causal grouped-query attention of new tokens over a cache: rotary positions, append, attend.

`attention` is one call for any number of tokens; `prepare` binds buffers once for a step of few
tokens that is repeated. Both take the stacked output of the query, key and value projections. The
module of a kernel defines `prepare`, and `attention` where it takes a whole prompt at once; each
counts its calls (kernels.calls).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import registry
from kernels.dtypes import FLOAT_OF

OP = "attention"


@dataclass(frozen=True)
class Heads:
    """The fixed part of one layer's attention.

    `cos`, `sin`: float32 [positions, dim / 2] for positions 0, 1, ...; `query_norm`, `key_norm`:
    RMS norm weights [dim] applied to each head before the rotation, or None; `window`: how many
    tokens a position sees, itself included, None for all.
    """

    heads: int
    kv_heads: int
    dim: int
    cos: Tensor
    sin: Tensor
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    eps: float = 1e-6
    window: int | None = None


Start = int | Tensor


def attention(qkv: Tensor, keys: Tensor, values: Tensor, start: Start, heads: Heads) -> Tensor:
    """Append the new tokens at position `start` and return [batch, tokens, heads * dim].

    `start` is one position for all rows, or int64 [batch] on the CPU with one for each.
    qkv [batch, tokens, (heads + 2 * kv_heads) * dim]; keys and values [batch, kv_heads, capacity,
    dim] of the same dtype are written in place. Raises ValueError when they do not fit.
    """
    _check(qkv, keys, values, heads)
    batch, tokens, _ = qkv.shape
    check_room(start, batch, tokens, min(keys.shape[2], heads.cos.shape[0]))
    _, kernel = registry.chosen(OP, qkv.device, FLOAT_OF[str(qkv.dtype)], "attention")
    out: Tensor = kernel.attention(qkv, keys, values, start, heads)
    return out


def prepare(
    qkv: Tensor, keys: Tensor, values: Tensor, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """A call that does what `attention` does and writes `out` [batch, tokens, heads * dim].

    `start` is an int64 [batch] on the CPU or on qkv's device, read at each call: the caller sees to
    it that start + tokens fits. With a start on the device the host never reads it where
    `reads_start_on_device`: the call can be captured in a CUDA graph. The tensors must stay where
    they are as long as the call is used.
    """
    _check(qkv, keys, values, heads)
    if out.shape != (*qkv.shape[:2], heads.heads * heads.dim) or out.dtype != qkv.dtype:
        raise ValueError("attention: out must be [batch, tokens, heads * dim] of qkv's dtype.")
    check_starts(start, len(qkv), qkv.device)
    _, kernel = registry.chosen(OP, qkv.device, FLOAT_OF[str(qkv.dtype)], "prepare")
    step: Callable[[], object] = kernel.prepare(qkv, keys, values, start, heads, out)
    return step


def reads_start_on_device(device: object, format: str) -> bool:
    """Whether the kernel that `prepare` would bind for a format (one of FLOATS, or a cache format's
    `kernel_format`) takes `start` on the device and never waits for it on the host.
    """
    _, kernel = registry.chosen(OP, device, format, "prepare")
    return bool(getattr(kernel, "READS_START_ON_DEVICE", False))


def common(start: Start) -> Start:
    """One number where every row starts at the same position."""
    if isinstance(start, int):
        return start
    first = int(start[0])
    return first if bool((start == first).all()) else start


def check_starts(start: Tensor, batch: int, device: torch.device | None = None) -> None:
    """Raise ValueError unless `start` is int64 [batch] on the CPU, or on `device` where given."""
    here = start.device.type == "cpu" or start.device == device
    if start.shape != (batch,) or start.dtype != torch.int64 or not here:
        other = "" if device is None or device.type == "cpu" else f" or on {device}"
        raise ValueError(f"attention: start must be int64 [batch] on the CPU{other}.")


def check_room(start: Start, batch: int, tokens: int, room: int) -> None:
    """Raise ValueError unless every row's tokens lie within `room` positions."""
    if isinstance(start, int):
        first = last = start
    else:
        check_starts(start, batch)
        first, last = int(start.min()), int(start.max())
    if first < 0 or last + tokens > room:
        raise ValueError("attention: the new tokens do not fit into the cache or the rotary table.")


def _check(qkv: Tensor, keys: Tensor, values: Tensor, heads: Heads) -> None:
    width = (heads.heads + 2 * heads.kv_heads) * heads.dim
    if qkv.ndim != 3 or qkv.shape[2] != width:
        raise ValueError(f"attention: qkv must be [batch, tokens, {width}].")
    if keys.ndim != 4 or keys.shape[:2] != (qkv.shape[0], heads.kv_heads):
        raise ValueError("attention: keys must be [batch, kv_heads, capacity, dim].")
    if keys.shape != values.shape or keys.shape[3] != heads.dim:
        raise ValueError("attention: keys and values must be [batch, kv_heads, capacity, dim].")
    if not qkv.dtype == keys.dtype == values.dtype:
        raise ValueError("attention: qkv, keys and values must share one dtype.")
