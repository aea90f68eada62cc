"""Owns the number formats: their name here, their bytes, and what files and torch call them.

Importing this imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DType:
    """`file` is the word of safetensors and GGUF, `torch` that of torch, and of a config.json."""

    name: str
    bytes: int
    file: str
    torch: str


DTYPES = (
    DType("fp64", 8, "F64", "float64"),
    DType("fp32", 4, "F32", "float32"),
    DType("fp16", 2, "F16", "float16"),
    DType("bf16", 2, "BF16", "bfloat16"),
    DType("e4m3", 1, "F8_E4M3", "float8_e4m3fn"),
    DType("e5m2", 1, "F8_E5M2", "float8_e5m2"),
    DType("bool", 1, "BOOL", "bool"),
    DType("i8", 1, "I8", "int8"),
    DType("u8", 1, "U8", "uint8"),
    DType("i16", 2, "I16", "int16"),
    DType("u16", 2, "U16", "uint16"),
    DType("i32", 4, "I32", "int32"),
    DType("u32", 4, "U32", "uint32"),
    DType("i64", 8, "I64", "int64"),
    DType("u64", 8, "U64", "uint64"),
)
BY_NAME = {dtype.name: dtype for dtype in DTYPES}
BY_FILE = {dtype.file: dtype for dtype in DTYPES}
BY_TORCH = {dtype.torch: dtype for dtype in DTYPES}
# What an engine computes in.
FLOATS = ("fp32", "bf16", "fp16")
# The same by torch's own text, `str(tensor.dtype)`, and their numbers in the records of the C++
# kernels (Kind of simd.h).
FLOAT_OF = {f"torch.{BY_NAME[name].torch}": name for name in FLOATS}
KIND_OF = {text: kind for kind, text in enumerate(FLOAT_OF)}
# Floats that a file of weights may hold.
FILE_FLOATS = ("F64", "F32", "F16", "BF16")


def nbytes(name: str) -> int:
    """Bytes of a number; KeyError for a name that is not in DTYPES."""
    return BY_NAME[name].bytes


def of_torch(dtype: object) -> DType:
    """The row of a torch dtype; KeyError where it has none."""
    return BY_TORCH[str(dtype).removeprefix("torch.")]


def as_torch(name: str) -> torch.dtype:
    """torch's dtype of a name."""
    import torch

    dtype: torch.dtype = getattr(torch, BY_NAME[name].torch)
    return dtype
