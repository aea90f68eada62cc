"""Attention over a cache in codes: append, quantize complete blocks, attend to codes and ring.

A token sees as codes exactly the tokens that KVFormat.coded names for its own position, however
many tokens are read in one call: a prompt read at once, in parts or token by token gives the same.
So what is judged on whole passages is what decoding does. (KIVI reads its prompt in 16 bit.)
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from torch import Tensor

from kernels import registry
from kernels.attention import OP, Heads, Start, check_room, check_starts, kv_cpu, kv_torch
from kernels.dtypes import FLOAT_OF
from kernels.kv_codes import PASS_TOKENS
from kernels.kv_codes.codes import KVCodes


def attention(qkv: Tensor, cache: KVCodes, start: Start, heads: Heads) -> Tensor:
    """Append the new tokens at position `start` and return [batch, tokens, heads * dim].

    `start` is one position for all rows, or int64 [batch] on the CPU with one for each.
    qkv [batch, tokens, (heads + 2 * kv_heads) * dim] of the ring's dtype; the cache of one layer is
    written in place. Raises ValueError when they do not fit.
    """
    _check(qkv, cache, heads)
    batch, tokens, _ = qkv.shape
    check_room(start, batch, tokens, min(cache.capacity, heads.cos.shape[0]))
    out = qkv.new_empty((*qkv.shape[:2], heads.heads * heads.dim))
    _kernel(qkv, cache, "run").run(qkv.contiguous(), cache, start, heads, out)
    return out


def prepare(
    qkv: Tensor, cache: KVCodes, start: Tensor, heads: Heads, out: Tensor
) -> Callable[[], object]:
    """A call that does what `attention` does and writes `out` [batch, tokens, heads * dim].

    For at most PASS_TOKENS tokens. `start` is an int64 [batch] on the CPU or on qkv's device, see
    kernels.attention.prepare: the caller sees to it that start + tokens fits. The tensors must stay
    where they are as long as the call is used.
    """
    _check(qkv, cache, heads)
    if out.shape != (*qkv.shape[:2], heads.heads * heads.dim) or out.dtype != qkv.dtype:
        raise ValueError("attention: out must be [batch, tokens, heads * dim] of qkv's dtype.")
    check_starts(start, len(qkv), qkv.device)
    if qkv.shape[1] > PASS_TOKENS:
        raise ValueError(f"attention: a step over codes takes at most {PASS_TOKENS} tokens.")
    step: Callable[[], object] = _kernel(qkv, cache, "prepare").prepare(
        qkv, cache, start, heads, out
    )
    return step


def _kernel(qkv: Tensor, cache: KVCodes, offers: str) -> ModuleType:
    """The chosen kernel's module, which counts its calls; the C++ kernel takes no fp16."""
    _, kernel = registry.chosen(OP, qkv.device, cache.format.kernel_format, offers)
    return kv_torch if kernel is kv_cpu and FLOAT_OF[str(qkv.dtype)] == "fp16" else kernel


def _check(qkv: Tensor, cache: KVCodes, heads: Heads) -> None:
    width = (heads.heads + 2 * heads.kv_heads) * heads.dim
    if qkv.ndim != 3 or qkv.shape[2] != width:
        raise ValueError(f"attention: qkv must be [batch, tokens, {width}].")
    wanted = (qkv.shape[0], heads.kv_heads, cache.format.slots(cache.capacity), heads.dim)
    if cache.keys.shape != wanted:
        raise ValueError("attention: the cache must be one layer's, for qkv's batch and heads.")
    if not qkv.dtype == cache.keys.dtype == cache.values.dtype:
        raise ValueError("attention: qkv and the cache's ring must share one dtype.")
