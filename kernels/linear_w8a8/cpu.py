"""Binds cpu.cpp: int8 rows of w against rows of x that are quantized on the way.

Owns: the layout, the records of pointers, and the scratch of a call. Checks nothing: the
operation's face does.
"""

import ctypes
import functools
from pathlib import Path

import torch

from kernels import build
from kernels.linear_w8a8.codes import W8A8
from kernels.program import BoundCall
from kernels.registry import KernelUnavailable

OP, NAME = "linear_w8a8", "cpp"
INSTRUCTION_SETS = ("scalar", "avx2", "avx_vnni", "avx512_vnni")
BLOCK, QUAD = 16, 4
# Rows laid out at a time.
CHUNK_ROWS = 4096


class _Weight(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scale", "bias", "apart")),
        *((name, ctypes.c_int64) for name in ("n", "aparts", "width", "k", "is_bf16", "isa")),
        ("x_scale", ctypes.c_double),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("weight", "x", "residual", "y", "apart", "codes", "scales", "sums")
        ),
        ("rows", ctypes.c_int64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = build.load(Path(__file__).with_name("cpu.cpp"))
    for name in ("w8a8_best_isa", "w8a8_row_stride", "w8a8_alone_rows"):
        getattr(library, name).restype = ctypes.c_int64
    library.w8a8_row_stride.argtypes = (ctypes.c_int64,)
    library.w8a8_run.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    library.w8a8_run.restype = None
    return library


def available() -> str | None:
    """None, or the sentence why the library cannot be built here."""
    return build.why_not(_library)


def best_instruction_set() -> str:
    """The name, from INSTRUCTION_SETS, that this processor would use."""
    return INSTRUCTION_SETS[_library().w8a8_best_isa()]


def refuse(form: W8A8, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    return None if dtype in (torch.bfloat16, torch.float32) else "takes bf16 and fp32"


def lay_out(codes: torch.Tensor) -> torch.Tensor:
    """int8 [n, k] -> uint8 [ceil(n / 16), ceil(k / 4), 16, 4], 128 more; what is added is 128."""
    n, k = codes.shape
    blocks, quads = -(-n // BLOCK), -(-k // QUAD)
    tiles = torch.empty(blocks, quads, BLOCK, QUAD, dtype=torch.uint8)
    for start in range(0, n, CHUNK_ROWS):
        part = codes[start : start + CHUNK_ROWS]
        # int8 + 128 as a byte is the same bits with the first one turned.
        rows = torch.full((-(-len(part) // BLOCK) * BLOCK, quads * QUAD), 128, dtype=torch.uint8)
        rows[: len(part), :k] = part.view(torch.uint8) ^ 128
        block = start // BLOCK
        tiles[block : block + len(rows) // BLOCK] = rows.view(-1, BLOCK, quads, QUAD).transpose(
            1, 2
        )
    return tiles


class Product:
    """See W8A8Weight: codes in blocks of 16 rows; pointers are taken once."""

    def __init__(
        self,
        form: W8A8,
        dtype: torch.dtype,
        bias: torch.Tensor | None,
        instruction_set: str | None = None,
    ) -> None:
        library = _library()
        best = library.w8a8_best_isa()
        wanted = best if instruction_set is None else INSTRUCTION_SETS.index(instruction_set)
        if wanted > best:
            raise KernelUnavailable(f"This processor has no {instruction_set} instructions.")
        self.n, self.k, self.x_scale, self._bias = form.n, form.k, form.x_scale, bias
        codes = form.kept()
        self._codes = lay_out(codes)
        self._scale, self._apart = form.scale.contiguous(), form.apart
        self._record = _Weight(
            self._codes.data_ptr(),
            self._scale.data_ptr(),
            _pointer(bias),
            _pointer(form.apart),
            form.n,
            form.k - codes.shape[1],
            form.k,
            codes.shape[1],
            dtype is torch.bfloat16,
            wanted,
            form.x_scale or 0.0,
        )
        self._address = ctypes.addressof(self._record)
        self._columns = codes.shape[1]
        self._stride = library.w8a8_row_stride(self._columns)
        self._alone = library.w8a8_alone_rows()
        self._run = library.w8a8_run

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        out = x.new_empty(x.shape[0], self.n)
        self.run(x, out)
        return out

    def run(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None = None,
        apart: torch.Tensor | None = None,
    ) -> None:
        """out [M, n] = residual + y; `apart` [M, o] gets what x has in the columns left out."""
        call, scratch = self._call(x, out, residual, apart)
        self._run(ctypes.addressof(call), torch.get_num_threads())
        del scratch

    def bind(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None = None,
        apart: torch.Tensor | None = None,
    ) -> BoundCall:
        """`run` with its arguments fixed; the tensors must stay where they are."""
        library = _library()
        call, scratch = self._call(x, out, residual, apart)
        parts: tuple[object, ...] = (library.w8a8_quantize, library.w8a8_product)
        if not scratch:
            parts = (library.w8a8_alone,)
        kept = (self, x, out, residual, apart, scratch)
        return BoundCall(OP, NAME, parts, call, kept, self._codes.nbytes)

    def _call(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None,
        apart: torch.Tensor | None,
    ) -> tuple[_Call, tuple[torch.Tensor, ...]]:
        rows = x.shape[0]
        scratch: tuple[torch.Tensor, ...] = ()
        # A few rows are quantized by every thread for itself; but one alone may write `apart`.
        if rows > self._alone or apart is not None:
            scratch = (
                torch.empty(rows * self._stride, dtype=torch.int8),
                torch.empty(rows, dtype=torch.float32),
                torch.empty(rows, dtype=torch.int32),
            )
        places = [tensor.data_ptr() for tensor in scratch] or [None, None, None]
        record = _Call(
            self._address,
            x.data_ptr(),
            _pointer(residual),
            out.data_ptr(),
            _pointer(apart),
            *places,
            rows,
        )
        return record, scratch

    def undo(self) -> W8A8:
        """The canonical form, exactly the one that was laid out."""
        blocks, quads = self._codes.shape[:2]
        rows = self._codes.transpose(1, 2).reshape(blocks * BLOCK, quads * QUAD)
        codes = (rows[: self.n, : self._columns] ^ 128).contiguous().view(torch.int8)
        return W8A8.of_kept(codes, self._scale, self.x_scale, self._apart, self.k)

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales and columns left out."""
        tensors = [self._codes, self._scale]
        return tensors if self._apart is None else [*tensors, self._apart]


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
