"""Binds cpu.cpp. Checks nothing: the operation's face does."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kernels import build, calls


class _Call(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("delta", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("is_bf16", ctypes.c_int64),
        ("eps", ctypes.c_double),
    )


def available() -> str | None:
    """None when the kernel is built, else why it cannot be."""
    _function()
    return None


@functools.cache
def _function() -> Callable[[object], None]:
    function = build.load(Path(__file__).with_name("cpu.cpp")).trimtab_rms_norm
    function.restype = None
    return function


def prepare(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, delta: Tensor | None
) -> Callable[[], None]:
    """See kernels.rms_norm.prepare; float32 or bfloat16, contiguous."""
    kept = [t.contiguous() if t is weight else t for t in (x, weight, out)]
    rows, size = x.shape
    call = _Call(
        x.data_ptr(), delta.data_ptr() if delta is not None else None, kept[1].data_ptr(),
        out.data_ptr(), rows, size, x.dtype == torch.bfloat16, eps,
    )  # fmt: skip
    function, pointer, count = _function(), ctypes.byref(call), calls.count

    # The default keeps the tensors alive whose addresses the call holds.
    def step(_kept: object = (kept, delta)) -> None:
        count("rms_norm", "cpp")
        function(pointer)

    return step
