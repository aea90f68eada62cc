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
        ("gate_up", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("is_bf16", ctypes.c_int64),
    )


def available() -> str | None:
    """None when the kernel is built, else why it cannot be."""
    _function()
    return None


@functools.cache
def _function() -> Callable[[object], None]:
    function = build.load(Path(__file__).with_name("cpu.cpp")).trimtab_swiglu
    function.restype = None
    return function


def prepare(gate_up: Tensor, out: Tensor) -> Callable[[], None]:
    """See kernels.swiglu.prepare; float32 or bfloat16, contiguous."""
    rows, size = out.shape
    call = _Call(gate_up.data_ptr(), out.data_ptr(), rows, size, out.dtype == torch.bfloat16)
    function, pointer, count = _function(), ctypes.byref(call), calls.count

    # The default keeps the tensors alive whose addresses the call holds.
    def step(_kept: object = (gate_up, out)) -> None:
        count("swiglu", "cpp")
        function(pointer)

    return step
