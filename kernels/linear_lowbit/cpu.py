"""Binding of cpu.cpp: products with a matrix in the layout of layout.py; bf16, fp32 or fp16 in and
out.

Owns: loading the library, the records of pointers that calls hand over, and the product with many
rows of x (tiles of the weight written out as bf16, multiplied by torch). The choice between kernels
and the checks of inputs belong to `__init__.py`.

The weight is decoded by a table of bf16 values. Integers up to 8 bits, FP4, FP8, ternary and binary
values are exact in it; the levels of NF4 are rounded to bf16 (0.4 % of a level at most). Scales are
multiplied in fp32.
"""

import ctypes
import functools

import torch

from kernels import build
from kernels.dtypes import KIND_OF
from kernels.linear_lowbit.codes import SCALE_FORMATS
from kernels.linear_lowbit.layout import ROWS, Packed, lay_out, undo
from kernels.pages import make_huge
from kernels.program import BoundCall
from kernels.registry import KernelUnavailable

__all__ = ["Packed", "Product", "available", "few_rows", "lay_out", "matmul_many", "undo"]

INSTRUCTION_SETS = ("scalar", "avx2", "avx512", "avx512_bf16")
# Rows of x up to which cpu.cpp is used where torch has faster instructions than it.
ROWS_BESIDE_TORCH = 24
# Bytes of a tile of bf16 weights in matmul_many: it is read from the cache again.
TILE_BYTES = 4 << 20
# As cpu.cpp numbers them.
_ZERO_FORMATS = (None, torch.int8, torch.float16, torch.float32)


class _Form(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scale", "zero", "step", "low")),
        ("table", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("n", "k", "width", "group_halves", "groups")),
        ("scale_format", ctypes.c_int64),
        ("zero_format", ctypes.c_int64),
        ("uniform", ctypes.c_int64),
        ("shift", ctypes.c_float),
        ("isa", ctypes.c_int32),
    )


class Call(ctypes.Structure):
    """One product with its arguments: Call of form.h."""

    _fields_ = (
        ("form", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("x_scale", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = build.load(__file__.replace(".py", ".cpp"))
    library.lowbit_best_isa.restype = ctypes.c_int64
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.lowbit_product.argtypes = (pointer, number)
    library.lowbit_product.restype = None
    library.lowbit_unpack.argtypes = (pointer, number, number, pointer, number)
    library.lowbit_unpack.restype = None
    return library


def available() -> str | None:
    """None, or the sentence why the library cannot be built here."""
    return build.why_not(_library)


def best_instruction_set() -> str:
    """The name, from INSTRUCTION_SETS, that this processor would use."""
    return INSTRUCTION_SETS[_library().lowbit_best_isa()]


@functools.cache
def few_rows() -> float:
    """The rows of x up to which Product is faster than matmul_many; infinite where it always is.

    With AVX2 and AVX-512 it is up to 512 rows at least (LOG.md). torch has matrix instructions that
    it lacks on processors with AMX and on those that are not x86; the bound there is reckoned from
    both sides' rates, not measured.
    """
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return ROWS_BESIDE_TORCH if amx() or best_instruction_set() == "scalar" else float("inf")


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _record(packed: Packed, bias: torch.Tensor | None, isa: str | None) -> _Form:
    best = _library().lowbit_best_isa()
    wanted = best if isa is None else INSTRUCTION_SETS.index(isa)
    if wanted > best:
        raise KernelUnavailable(f"This processor has no {isa} instructions.")
    return _Form(
        packed.codes.data_ptr(),
        packed.scale.data_ptr(),
        _address(packed.zero),
        _address(packed.step),
        _address(packed.low),
        packed.table.data_ptr(),
        _address(bias),
        packed.n,
        packed.k,
        packed.width,
        packed.group_columns // 16,
        packed.scale.shape[1],
        SCALE_FORMATS.index(packed.scale_format),
        _ZERO_FORMATS.index(None if packed.zero is None else packed.zero.dtype),
        packed.kind == "int",
        packed.shift,
        wanted,
    )


class Product:
    """One packed matrix [n, k] with its bias [n] or None, made ready for many calls.

    Nothing is checked; the caller guarantees contiguous CPU tensors of one float dtype and of the
    right shapes.
    """

    __slots__ = ("_bias", "_call", "_form", "_packed")

    def __init__(
        self, packed: Packed, bias: torch.Tensor | None = None, isa: str | None = None
    ) -> None:
        self._packed = packed
        self._bias = None if bias is None else bias.detach().contiguous()
        self._form = _record(packed, self._bias, isa)
        for tensor in packed.tensors():
            make_huge(tensor)
        self._call = _library().lowbit_product

    def run(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None = None
    ) -> None:
        """out = residual + x @ weight.T + bias, for x [rows, k]; out may be residual."""
        self.call(self.record(x, out, rows, residual))

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, rows: int, residual: torch.Tensor | None = None
    ) -> BoundCall:
        """`run` with its arguments fixed; the tensors must stay where they are."""
        record = self.record(x, out, rows, residual)
        kept = (self, x, out, residual)
        return BoundCall("linear_lowbit", "cpp", (self.part,), record, kept, self._packed.nbytes)

    def record(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        rows: int,
        residual: torch.Tensor | None = None,
        x_scale: torch.Tensor | None = None,
    ) -> Call:
        """The arguments of one product; x_scale fp32 [rows] multiplies what x [rows, k] gives."""
        places = (x.data_ptr(), _address(residual), out.data_ptr(), rows, _address(x_scale))
        return Call(ctypes.addressof(self._form), *places, KIND_OF[str(x.dtype)])

    def call(self, record: Call) -> None:
        """Do it with torch's number of threads."""
        self._call(ctypes.addressof(record), torch.get_num_threads())

    @property
    def part(self) -> object:
        """The C function for BoundCall, whose record begins with a Call."""
        return _library().lowbit_part


def unpack_rows(
    packed: Packed, begin: int, end: int, out: torch.Tensor, isa: str | None = None
) -> None:
    """Write rows [begin, end) of the weight, rounded to bf16, into out [end - begin, k].

    `begin` is a multiple of 16; `out` is contiguous bf16.
    """
    if begin % ROWS or not 0 <= begin <= end <= packed.n:
        raise ValueError(f"rows {begin} to {end} do not begin at a multiple of {ROWS} in range.")
    form = _record(packed, None, isa)
    _library().lowbit_unpack(
        ctypes.addressof(form), begin, end, out.data_ptr(), torch.get_num_threads()
    )


def matmul_many(x: torch.Tensor, packed: Packed, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [M, k] -> y [M, n], bf16, through tiles of bf16 weights that stay in the cache."""
    rows = max(ROWS, TILE_BYTES // (2 * packed.k) // ROWS * ROWS)
    tile = torch.empty(min(rows, packed.n), packed.k, dtype=torch.bfloat16)
    y = x.new_empty(x.shape[0], packed.n)
    for begin in range(0, packed.n, rows):
        end = min(begin + rows, packed.n)
        part = tile[: end - begin]
        unpack_rows(packed, begin, end, part)
        y[:, begin:end] = x @ part.T
    return y if bias is None else y.add_(bias)
