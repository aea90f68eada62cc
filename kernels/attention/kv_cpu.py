"""Binds kv.cpp. Checks nothing: the operation's face does."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import build
from kernels.kv_codes import PASS_TOKENS
from kernels.program import BoundCall, Program

if TYPE_CHECKING:
    from kernels.attention import Heads, Start
    from kernels.kv_codes.codes import KVCodes

BEST = 2


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "qkv", "keys", "values", "key_codes", "key_scale", "value_codes", "value_scale", "cos",
            "sin", "query_norm", "key_norm", "out", "start",
        )),
        *((name, ctypes.c_int64) for name in (
            "batch", "total", "first", "tokens", "heads", "kv_heads", "dim", "slots", "blocks",
            "group", "residual", "window", "bits", "is_bf16", "isa",
        )),
        ("eps", ctypes.c_double),
    )  # fmt: skip


def available() -> str | None:
    """None when the kernel is built, else why it cannot be."""
    _library()
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    return build.load(Path(__file__).with_name("kv.cpp"))


def prepare(
    qkv: Tensor, cache: KVCodes, start: Tensor, heads: Heads, out: Tensor, isa: int = BEST
) -> BoundCall:
    """See kernels.attention.quantized.prepare; float32 or bfloat16, contiguous. `isa` 1 allows AVX2
    at most, 0 plain code.
    """
    batch, tokens, _ = qkv.shape
    norms = [None if n is None else n.to(qkv.dtype) for n in (heads.query_norm, heads.key_norm)]
    pointers = [
        None if t is None else t.data_ptr()
        for t in (
            qkv, cache.keys, cache.values, cache.key_codes, cache.key_scale, cache.value_codes,
            cache.value_scale, heads.cos, heads.sin, *norms, out, start,
        )
    ]  # fmt: skip
    call = _Call(
        *pointers, batch, tokens, 0, min(tokens, PASS_TOKENS), heads.heads, heads.kv_heads,
        heads.dim, cache.keys.shape[2], cache.key_codes.shape[2], cache.format.group_size,
        cache.format.residual, heads.window or 0, cache.format.bits, qkv.dtype == torch.bfloat16,
        isa, heads.eps,
    )  # fmt: skip
    parts = (_library().trimtab_kv_append, _library().trimtab_kv_attend)
    kept = (qkv, cache, start, heads, norms, out)
    # How much of the cache a run reads is not known yet; an eighth is a fair guess.
    work = 2 * qkv.nbytes + cache.nbytes // 8
    return BoundCall("attention", f"cpp-kv{cache.format.bits}", parts, call, kept, work)


def run(qkv: Tensor, cache: KVCodes, start: Start, heads: Heads, out: Tensor) -> None:
    """All tokens of qkv, as many passes as they need."""
    starts = torch.full((len(qkv),), start) if isinstance(start, int) else start
    bound = prepare(qkv, cache, starts, heads, out)
    # A bound call that runs itself is freed by the garbage collector only, its tensors with it.
    program, record = Program((bound,)), bound.record
    for first in range(0, qkv.shape[1], PASS_TOKENS):
        record.first, record.tokens = first, min(PASS_TOKENS, qkv.shape[1] - first)
        program()
