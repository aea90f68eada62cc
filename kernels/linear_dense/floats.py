"""Binding of floats.cpp: the matrix-vector product for decoding, in fp32 and fp16.

The choice between kernels and the checks of inputs belong to the operation's `__init__.py`.
"""

import ctypes
import functools

import torch

from kernels import build
from kernels.dtypes import KIND_OF
from kernels.program import BoundCall
from kernels.registry import KernelUnavailable

INSTRUCTION_SETS = ("scalar", "avx2")


class _Dense(ctypes.Structure):
    _fields_ = (
        ("w", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("n", "k", "kind", "isa")),
    )


class _Bound(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("dense", "x", "residual", "y")),
        ("rows", ctypes.c_int64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = build.load(__file__.replace(".py", ".cpp"))
    library.floats_best_isa.restype = ctypes.c_int64
    library.floats_product.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    library.floats_product.restype = None
    return library


def available() -> str | None:
    """None, or the sentence why the library cannot be built here."""
    return build.why_not(_library)


def best_instruction_set() -> str:
    """The name, from INSTRUCTION_SETS, that this processor would use."""
    return INSTRUCTION_SETS[_library().floats_best_isa()]


class Gemv:
    """One fp32 or fp16 weight [N, K] made ready.

    `run` does not check; its caller guarantees contiguous CPU tensors of the weight's dtype and of
    the right shapes.
    """

    __slots__ = ("_bias", "_record", "_weight")

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, instruction_set: str | None = None
    ) -> None:
        best = _library().floats_best_isa()
        wanted = best if instruction_set is None else INSTRUCTION_SETS.index(instruction_set)
        if wanted > best:
            raise KernelUnavailable(f"This processor has no {instruction_set} instructions.")
        # Detached tensors hold the storage, so a later `weight.data = ...` cannot free it.
        self._weight = weight.detach().contiguous()
        self._bias = None if bias is None else bias.detach().contiguous()
        self._record = _Dense(
            self._weight.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            *self._weight.shape,
            KIND_OF[str(weight.dtype)],
            wanted,
        )

    def run(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None = None
    ) -> None:
        """out = residual + x @ weight.T + bias, for x [rows, K]; out may be residual."""
        record = self._bound(x, out, rows, residual)
        _library().floats_product(ctypes.addressof(record), torch.get_num_threads())

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None = None
    ) -> BoundCall:
        """`run` with its arguments fixed; the tensors must stay where they are."""
        record = self._bound(x, out, rows, residual)
        parts = (_library().floats_part,)
        kept = (self, x, out, residual)
        return BoundCall("linear_dense", "gemv-float", parts, record, kept, self._weight.nbytes)

    def _bound(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None
    ) -> _Bound:
        return _Bound(
            ctypes.addressof(self._record),
            x.data_ptr(),
            None if residual is None else residual.data_ptr(),
            out.data_ptr(),
            rows,
        )
