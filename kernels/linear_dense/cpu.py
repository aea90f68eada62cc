"""Binding of cpu.cpp: the bf16 matrix-vector product for decoding.

Owns: loading the library, and the record of pointers that one call hands over. The choice between
this kernel and torch's, and the checks of inputs, belong to the operation's `__init__.py`.
"""

import ctypes
import functools

import torch

from kernels import build
from kernels.program import BoundCall
from kernels.registry import KernelUnavailable

INSTRUCTION_SETS = ("scalar", "avx2", "avx512", "avx512_bf16")


class _Dense(ctypes.Structure):
    _fields_ = (
        ("w", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("isa", ctypes.c_int64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = build.load(__file__.replace(".py", ".cpp"))
    library.gemv_best_isa.restype = ctypes.c_int64
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.gemv_bf16.argtypes = (pointer, pointer, pointer, pointer, number, number)
    library.gemv_bf16.restype = None
    return library


def available() -> str | None:
    """None, or the sentence why the library cannot be built here."""
    return build.why_not(_library)


def best_instruction_set() -> str:
    """The name, from INSTRUCTION_SETS, that this processor would use."""
    return INSTRUCTION_SETS[_library().gemv_best_isa()]


class _Bound(ctypes.Structure):
    _fields_ = (
        ("dense", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
    )


class Gemv:
    """One bf16 weight [N, K] made ready: pointers are taken once, a call only passes numbers.

    `run` does not check; its caller guarantees contiguous bf16 CPU tensors of the right shapes.
    """

    __slots__ = ("_bias", "_call", "_pointer", "_record", "_weight")

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, instruction_set: str | None = None
    ) -> None:
        library = _library()
        best = library.gemv_best_isa()
        wanted = best if instruction_set is None else INSTRUCTION_SETS.index(instruction_set)
        if wanted > best:
            raise KernelUnavailable(f"This processor has no {instruction_set} instructions.")
        # Detached tensors hold the storage, so a later `weight.data = ...` cannot free it.
        self._weight = weight.detach().contiguous()
        self._bias = None if bias is None else bias.detach().contiguous()
        n, k = weight.shape
        self._record = _Dense(
            self._weight.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            n,
            k,
            wanted,
        )
        self._pointer = ctypes.addressof(self._record)
        self._call = library.gemv_bf16

    def run(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None = None
    ) -> None:
        """out = residual + x @ weight.T + bias, for x [rows, K]; out may be residual."""
        self._call(
            self._pointer,
            x.data_ptr(),
            None if residual is None else residual.data_ptr(),
            out.data_ptr(),
            rows,
            torch.get_num_threads(),
        )

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None = None
    ) -> BoundCall:
        """`run` with its arguments fixed; the tensors must stay where they are."""
        record = _Bound(
            self._pointer,
            x.data_ptr(),
            None if residual is None else residual.data_ptr(),
            out.data_ptr(),
            rows,
        )
        parts = (_library().gemv_bf16_part,)
        kept = (self, x, out, residual)
        return BoundCall("linear_dense", "gemv-bf16", parts, record, kept, self._weight.nbytes)
