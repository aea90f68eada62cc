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
        ("gate_up", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("kind", ctypes.c_int64),
    )


def available() -> str | None:
    """None when the kernel is built, else why it cannot be."""
    _library()
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    return build.load(Path(__file__).with_name("cpu.cpp"))


def prepare(gate_up: Tensor, out: Tensor) -> BoundCall:
    """See kernels.swiglu.prepare; any of FLOATS, contiguous."""
    rows, size = out.shape
    call = _Call(gate_up.data_ptr(), out.data_ptr(), rows, size, KIND_OF[str(out.dtype)])
    parts = (_library().trimtab_swiglu,)
    return BoundCall("swiglu", "cpp", parts, call, (gate_up, out), 3 * out.nbytes)
