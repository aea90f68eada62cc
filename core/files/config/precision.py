"""Owns which float format a model is computed in: that of its file, so that no number is rounded.

Read from the tensor table alone where all floats have one format; where formats are mixed, the few
numbers of the lesser ones are read, to see whether the main one holds them. No torch here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.files import quantized
from core.files.config import names
from core.files.gguf import folder as gguf_files
from core.files.header import TensorEntry
from kernels.dtypes import BY_FILE, BY_NAME, FLOATS

# What each float format of a file is computed in.
OF_FILE = {BY_NAME[name].file: name for name in FLOATS} | {"F64": "fp32"}
# Of a file without floats, and of random weights.
USUAL = "bf16"
# Bytes of the lesser formats that are read; above it nobody waits for what they hold.
MAX_READ = 64 << 20
# Scales and zeros are no numbers of the model's own: packed formats keep them as they are.
_BESIDE_CODES = re.compile(
    r"\.(?:weight_|input_|output_)?(?:q?scales?|scale_step|scale_low|q?zeros?|zero_point)$"
)


def stored_dtype(
    config: Mapping[str, Any], entries: Sequence[TensorEntry], files: Sequence[Path]
) -> str:
    """fp32, bf16 or fp16: the narrowest that holds every float of the files (F64 goes to fp32), or
    what `trimtab apply` wrote down. `files` were checked; they are read where formats are mixed.
    """
    saved = quantized.saved_dtype(config)
    if saved is not None:
        return saved
    floats = [entry for entry in entries if entry.dtype in OF_FILE and not _beside(entry.name)]
    if gguf_files.is_gguf(config):
        # Vectors are always F32 there, whatever format the model had.
        kinds = {OF_FILE[entry.dtype] for entry in floats if len(entry.shape) > 1}
        return USUAL if not kinds else kinds.pop() if len(kinds) == 1 else "fp32"
    sizes: dict[str, int] = {}
    for entry in floats:
        kind = OF_FILE[entry.dtype]
        sizes[kind] = sizes.get(kind, 0) + entry.nbytes
    if len(sizes) <= 1:
        return next(iter(sizes), USUAL)
    main = max(sizes, key=lambda kind: sizes[kind])
    if main == "fp32" or sum(sizes.values()) - sizes[main] > MAX_READ:
        return "fp32"
    lesser = {entry.name for entry in floats if OF_FILE[entry.dtype] != main}
    return main if all(_holds(main, *part) for part in _numbers(files, lesser)) else "fp32"


def rounded(config: Mapping[str, Any], entries: Iterable[TensorEntry], dtype: str) -> str:
    """What loading in `dtype` rounds of the file's numbers, as a sentence; empty for nothing."""
    tensors = tuple(entries)
    if any(entry.dtype == "F64" for entry in tensors):
        return (
            "the file's numbers of 64 bits are rounded to fp32, by 6e-8 of their size at most: less"
            " than can be measured here"
        )
    if gguf_files.is_gguf(config) and dtype != "fp32":
        codes = [entry for entry in tensors if entry.name == "token_embd.weight"]
        coded = [entry.dtype for entry in codes if entry.dtype not in OF_FILE]
        parts = [f"the embedding, stored in codes ({coded[0]})"] if coded else []
        parts += (
            ["the norms, stored in F32"] if any(len(entry.shape) == 1 for entry in tensors) else []
        )
        if parts:
            return f"{' and '.join(parts)}, are held in {dtype}: their numbers are rounded to it"
    return ""


def _beside(name: str) -> bool:
    return bool(_BESIDE_CODES.search(name)) or name.endswith(names.IGNORED)


def _numbers(files: Sequence[Path], wanted: set[str]) -> Iterable[tuple[str, bytes]]:
    """(format, raw bytes) of each tensor named in `wanted`."""
    for file in files:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            table = json.loads(handle.read(length))
            for name in wanted & table.keys():
                begin, end = table[name]["data_offsets"]
                handle.seek(8 + length + begin)
                yield table[name]["dtype"], handle.read(end - begin)


def _holds(main: str, dtype: str, raw: bytes) -> bool:
    """Whether bf16 or fp16 (`main`) holds each number of a tensor of another format."""
    if dtype == "BF16":
        numbers = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        numbers = np.frombuffer(raw, np.dtype(BY_FILE[dtype].torch).newbyteorder("<"))
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = numbers.astype(np.float16 if main == "fp16" else np.float32)
        if main == "bf16":
            narrow = (narrow.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return bool(np.array_equal(narrow.astype(numbers.dtype), numbers, equal_nan=True))
