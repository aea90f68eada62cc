"""Binds cpu.cpp. Checks nothing: the operation's face does."""

import ctypes
import functools
from pathlib import Path

from torch import Tensor

from kernels import build
from kernels.dtypes import KIND_OF
from kernels.program import BoundCall


class _Call(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("delta", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("eps", ctypes.c_double),
    )


def available() -> str | None:
    """None when the kernel is built, else why it cannot be."""
    _library()
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    return build.load(Path(__file__).with_name("cpu.cpp"))


def prepare(x: Tensor, weight: Tensor, eps: float, out: Tensor, delta: Tensor | None) -> BoundCall:
    """See kernels.rms_norm.prepare; any of FLOATS, contiguous."""
    weight = weight.contiguous()
    rows, size = x.shape
    call = _Call(
        x.data_ptr(), delta.data_ptr() if delta is not None else None, weight.data_ptr(),
        out.data_ptr(), rows, size, KIND_OF[str(x.dtype)], eps,
    )  # fmt: skip
    parts = (_library().trimtab_rms_norm,)
    work = 3 * x.nbytes
    return BoundCall("rms_norm", "cpp", parts, call, (x, delta, weight, out), work, most=rows)
