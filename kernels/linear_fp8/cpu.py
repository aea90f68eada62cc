"""The kernel "cpp": rows rounded to E4M3 by cpu.cpp, multiplied by linear_lowbit's C++ loops.

What E4M3 units give, on any CPU: both sides' numbers are exact in bf16, their products in fp32.
"""

import ctypes
import functools

import torch

from kernels import build
from kernels.linear_lowbit import cpu as lowbit
from kernels.linear_lowbit.codes import LowBit
from kernels.program import BoundCall

OP, NAME = "linear_fp8", "cpp"


class _Call(lowbit.Call):
    _fields_ = (("given", ctypes.c_void_p),)


@functools.cache
def _library() -> ctypes.CDLL:
    library = build.load(__file__.replace(".py", ".cpp"))
    library.fp8_round_all.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    library.fp8_round_all.restype = None
    return library


def available() -> str | None:
    """None, or the sentence why the libraries cannot be built here."""
    return lowbit.available() or build.why_not(_library)


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    return None if dtype is torch.bfloat16 else f"takes bf16 x, not {dtype}"


class Product:
    """See Fp8Weight: codes in linear_lowbit's layout."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n = form.n
        self._packed = lowbit.lay_out(form)
        self._product = lowbit.Product(self._packed, bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        out = x.new_empty(x.shape[0], self.n)
        record, scratch = self._record(x, out, None)
        _library().fp8_round_all(ctypes.addressof(record), torch.get_num_threads())
        self._product.call(record)
        del scratch
        return out

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> BoundCall:
        """A call with its arguments fixed; the tensors must stay where they are."""
        record, scratch = self._record(x, out, residual)
        parts = (_library().fp8_round, self._product.part)
        kept = (self, x, out, residual, scratch)
        return BoundCall(OP, NAME, parts, record, kept, self._packed.nbytes)

    def _record(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[_Call, tuple[torch.Tensor, torch.Tensor]]:
        rounded, scale = torch.empty_like(x), torch.empty(x.shape[0], dtype=torch.float32)
        product = self._product.record(rounded, out, x.shape[0], residual, scale)
        fields = (getattr(product, name) for name, _ in lowbit.Call._fields_)
        return _Call(*fields, x.data_ptr()), (rounded, scale)

    def undo(self) -> LowBit:
        """The canonical form."""
        return lowbit.undo(self._packed)

    def tensors(self) -> list[torch.Tensor]:
        """What the layout keeps."""
        return list(self._packed.tensors())
