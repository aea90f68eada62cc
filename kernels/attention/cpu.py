"""Binds cpu.cpp. Checks nothing: the operation's face does."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import build
from kernels.dtypes import KIND_OF
from kernels.program import BoundCall

if TYPE_CHECKING:
    from kernels.attention import Heads


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "qkv", "keys", "values", "cos", "sin", "query_norm", "key_norm", "out", "rotated",
            "start",
        )),
        *((name, ctypes.c_int64) for name in (
            "batch", "tokens", "heads", "kv_heads", "dim", "capacity", "window", "kind",
        )),
        ("eps", ctypes.c_double),
    )  # fmt: skip


def available() -> str | None:
    """None when the kernel is built, else why it cannot be."""
    _library()
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    return build.load(Path(__file__).with_name("cpu.cpp"))


def prepare(
    qkv: Tensor, keys: Tensor, values: Tensor, start: Tensor, heads: Heads, out: Tensor
) -> BoundCall:
    """See kernels.attention.prepare; any of FLOATS, contiguous."""
    batch, tokens, _ = qkv.shape
    rotated = torch.empty(batch * tokens * heads.heads * heads.dim, dtype=torch.float32)
    norms = [None if n is None else n.to(qkv.dtype) for n in (heads.query_norm, heads.key_norm)]
    pointers = [
        None if t is None else t.data_ptr()
        for t in (qkv, keys, values, heads.cos, heads.sin, *norms, out, rotated, start)
    ]
    call = _Call(
        *pointers, batch, tokens, heads.heads, heads.kv_heads, heads.dim, keys.shape[2],
        heads.window or 0, KIND_OF[str(qkv.dtype)], heads.eps,
    )  # fmt: skip
    parts = (_library().trimtab_attention_append, _library().trimtab_attention_attend)
    kept = (qkv, keys, values, start, heads, norms, out, rotated)
    # How much of the cache a run reads is not known yet; an eighth is a fair guess.
    work = 2 * qkv.nbytes + (keys.nbytes + values.nbytes) // 8
    return BoundCall("attention", "cpp", parts, call, kept, work)
