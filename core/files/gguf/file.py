"""The container GGUF, version 3: metadata and tensors in one file. It needs no torch.

Owns the bytes of the header and the places of the tensors; which metadata a model has and how a
matrix lies in blocks is said by model.py and blocks.py. Source: ggml, docs/gguf.md.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class BlockType:
    """A type of ggml: `size` bytes hold `values` numbers of a row; `mostly` is what
    llama.cpp writes as general.file_type where most matrices are of it.
    """

    name: str
    code: int
    values: int
    size: int
    mostly: int

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a matrix whose rows are whole blocks."""
        return rows * columns // self.values * self.size


TYPES = {
    kind.name: kind
    for kind in (
        BlockType("F32", 0, 1, 4, 0),
        BlockType("F16", 1, 1, 2, 1),
        BlockType("BF16", 30, 1, 2, 32),
        BlockType("Q4_0", 2, 32, 18, 2),
        BlockType("Q4_1", 3, 32, 20, 3),
        BlockType("Q5_0", 6, 32, 22, 8),
        BlockType("Q5_1", 7, 32, 24, 9),
        BlockType("Q8_0", 8, 32, 34, 7),
        BlockType("Q2_K", 10, 256, 84, 10),
        BlockType("Q3_K", 11, 256, 110, 12),
        BlockType("Q4_K", 12, 256, 144, 15),
        BlockType("Q5_K", 13, 256, 176, 17),
        BlockType("Q6_K", 14, 256, 210, 18),
    )
}


@dataclass(frozen=True)
class GgufEntry:
    """A tensor to be written: [rows, columns], or [columns] where `rows` is None."""

    name: str
    type: BlockType
    rows: int | None
    columns: int
    make: Callable[[], Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return self.type.nbytes(self.rows or 1, self.columns)


def pieces(
    metadata: Mapping[str, Any], entries: Sequence[GgufEntry]
) -> Iterable[bytes | memoryview]:
    """The bytes of the file, one tensor at a time. Whole numbers become uint32 where they fit, an
    array of the code "i" int32, one of "f" float32. `make` gives a buffer of `nbytes` bytes.

    Raises ValueError for a value that GGUF has no type for and for a tensor of another size.
    """
    yield header(metadata, entries)
    for entry in entries:
        data = memoryview(entry.make()).cast("B")
        if len(data) != entry.nbytes:
            raise ValueError(f"{entry.name} was to have {entry.nbytes} bytes, it has {len(data)}.")
        yield data
        yield b"\0" * (-len(data) % ALIGNMENT)


def header(metadata: Mapping[str, Any], entries: Sequence[GgufEntry]) -> bytes:
    """All that stands before the first tensor's data."""
    out = [MAGIC, struct.pack("<IQQ", VERSION, len(entries), len(metadata))]
    for key, value in metadata.items():
        out += [_string(key), _value(key, value)]
    offset = 0
    for entry in entries:
        sizes = [entry.columns] if entry.rows is None else [entry.columns, entry.rows]
        out.append(_string(entry.name))
        out.append(struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, entry.type.code, offset))
        offset += entry.nbytes + -entry.nbytes % ALIGNMENT
    text = b"".join(out)
    return text + b"\0" * (-len(text) % ALIGNMENT)


def file_bytes(metadata: Mapping[str, Any], entries: Sequence[GgufEntry]) -> int:
    """Bytes that the file of these has."""
    return len(header(metadata, entries)) + sum(
        entry.nbytes + -entry.nbytes % ALIGNMENT for entry in entries
    )


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    kind, data = _typed(key, value)
    return struct.pack("<I", kind) + data


def _typed(key: str, value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        if 0 <= value < 1 << 32:
            return U32, struct.pack("<I", value)
        if -(1 << 31) <= value < 0:
            return I32, struct.pack("<i", value)
        return U64, struct.pack("<Q", value)
    if isinstance(value, float):
        return F32, struct.pack("<f", value)
    if isinstance(value, str):
        return STRING, _string(value)
    if isinstance(value, array) and value.typecode == "i":
        numbers = struct.pack(f"<{len(value)}i", *value)
        return ARRAY, struct.pack("<IQ", I32, len(value)) + numbers
    if isinstance(value, array) and value.typecode == "f":
        numbers = struct.pack(f"<{len(value)}f", *value)
        return ARRAY, struct.pack("<IQ", F32, len(value)) + numbers
    if isinstance(value, list) and value:
        typed = [_typed(key, item) for item in value]
        kinds = {kind for kind, _ in typed}
        if len(kinds) == 1:
            head = struct.pack("<IQ", typed[0][0], len(value))
            return ARRAY, head + b"".join(data for _, data in typed)
    raise ValueError(f"GGUF has no type for {key} = {value!r:.60}.")
