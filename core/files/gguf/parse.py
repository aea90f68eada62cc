"""Reading the container GGUF, version 2 and 3, of unknown origin: header and places, all checked.

No weights are read and no torch is needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import BadInput
from core.files.gguf.file import ALIGNMENT, ARRAY, BOOL, MAGIC, STRING, TYPES, BlockType

MAX_TENSORS, MAX_KEYS, MAX_ITEMS = 200_000, 10_000, 4_000_000
# Published vocabularies have up to 10 MB of words and merges.
MAX_HEADER_BYTES, MAX_STRING = 256_000_000, 4_000_000
BY_CODE = {kind.code: kind for kind in TYPES.values()}
# struct's letters by the type of a value.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q",
           12: "d"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One tensor of a file: `shape` as rows of columns, `begin` its first byte in the file."""

    name: str
    type: BlockType
    shape: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Gguf:
    """A checked file: metadata, the tensors by name, and the raw header's length."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Place]
    header_bytes: int


def parse(path: Path) -> Gguf:
    """The header of `path`; BadInput names the file and what is wrong with it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _Reader(path, file, size).read()
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror or error}.") from None


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size, self.at = path, file, size, 0

    def read(self) -> Gguf:
        if self._take(4) != MAGIC:
            raise self._bad("is no GGUF file")
        version, tensors, keys = self._unpack("IQQ")
        if version not in (2, 3):
            raise self._bad(f"has version {version} of GGUF, 2 and 3 are read")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise self._bad(f"claims {tensors:,} tensors and {keys:,} keys, which is no sound file")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            if key in metadata:
                raise self._bad(f"gives the key {key[:80]!r} twice")
            metadata[key] = self._value(self._unpack("I")[0], key)
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment not in (8, 16, 32, 64, 128, 256, 4096):
            raise self._bad(f"has the alignment {alignment!r:.40}")
        described = [self._tensor() for _ in range(tensors)]
        data = self.at + -self.at % alignment
        return Gguf(self.path, metadata, self._placed(described, data, alignment), self.at)

    def _placed(
        self, described: list[tuple[str, BlockType, tuple[int, ...], int]], data: int, step: int
    ) -> dict[str, Place]:
        places: dict[str, Place] = {}
        reached = 0
        for name, kind, shape, offset in sorted(described, key=lambda entry: entry[3]):
            rows = shape[0] if len(shape) == 2 else 1
            nbytes = kind.nbytes(rows, shape[-1])
            where = f"the tensor {name[:200]!r}"
            if name in places:
                raise self._bad(f"has {where} twice")
            if offset % step or offset < reached:
                raise self._bad(f"has {where} at byte {offset:,}, where another one is")
            if data + offset + nbytes > self.size:
                raise self._bad(
                    f"is cut off: {where} ends at byte {data + offset + nbytes:,} of {self.size:,}"
                )
            places[name] = Place(name, kind, shape, data + offset, nbytes)
            reached = offset + nbytes
        return places

    def _tensor(self) -> tuple[str, BlockType, tuple[int, ...], int]:
        name = self._string()
        (count,) = self._unpack("I")
        where = f"the tensor {name[:200]!r}"
        if not 1 <= count <= 2:
            raise self._bad(f"has {where} of {count} dimensions, matrices and vectors are read")
        sizes = self._unpack(f"{count}Q")
        code, offset = self._unpack("IQ")
        kind = BY_CODE.get(code)
        if kind is None:
            raise self._bad(f"has {where} of ggml's type {code}; read are {', '.join(TYPES)}")
        if not all(1 <= size < 1 << 40 for size in sizes) or sizes[0] % kind.values:
            raise self._bad(f"has {where} of {list(sizes)}, which are no rows of {kind.name}")
        return name, kind, tuple(reversed(sizes)), offset

    def _value(self, kind: int, key: str, depth: int = 0) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY and depth == 0:
            inner, count = self._unpack("IQ")
            if count > MAX_ITEMS:
                raise self._bad(f"has {count:,} values in {key[:80]!r}, {MAX_ITEMS:,} are read")
            if inner in NUMBERS:
                return list(self._unpack(f"{count}{NUMBERS[inner]}"))
            return [self._value(inner, key, 1) for _ in range(count)]
        if kind not in NUMBERS:
            raise self._bad(f"has a value of type {kind} in {key[:80]!r}, which is not known")
        return self._unpack(NUMBERS[kind])[0]

    def _string(self) -> str:
        (length,) = self._unpack("Q")
        if length > MAX_STRING:
            raise self._bad(f"has a text of {length:,} bytes in its header")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self._bad("has a text that is not UTF-8 in its header") from None

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))

    def _take(self, count: int) -> bytes:
        self.at += count
        if self.at > min(self.size, MAX_HEADER_BYTES):
            raise self._bad("is cut off or damaged: its header does not end")
        return self.file.read(count)

    def _bad(self, what: str) -> BadInput:
        return BadInput(f"{self.path.name} {what}.")
