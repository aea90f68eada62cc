"""Owns tensors on their way into a .safetensors file: sizes known before, bytes made one by one.

The library's own writer takes all tensors at once, which would hold a second model in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core import disk
from core.files.header import ITEM_BYTES
from kernels.dtypes import of_torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 24


@dataclass(frozen=True)
class Part:
    """One tensor to be written; `make` gives it when its turn has come."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def part(name: str, tensor: Tensor) -> Part:
    """A tensor that is there already."""
    return Part(name, of_torch(tensor.dtype).file, tuple(tensor.shape), lambda: tensor)


def header(parts: Sequence[Part]) -> tuple[bytes, list[Part]]:
    """The file's first bytes, and the parts in the order in which their data follows.

    Wide numbers first: readers map the file, and a number must not straddle its own size.
    """
    ordered = sorted(parts, key=lambda entry: (-ITEM_BYTES[entry.dtype], entry.name))
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for entry in ordered:
        end = begin + entry.nbytes
        table[entry.name] = {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, ordered


def file_bytes(parts: Sequence[Part]) -> int:
    """Bytes that the file of these parts has."""
    return len(header(parts)[0]) + sum(entry.nbytes for entry in parts)


def blocks(parts: Sequence[Part]) -> Iterable[memoryview]:
    """The bytes of the file, one tensor at a time. Raises ValueError when a tensor is not what its
    part said.
    """
    first, ordered = header(parts)
    yield memoryview(first)
    for entry in ordered:
        yield data_of(entry)


def data_of(entry: Part) -> memoryview:
    """The bytes of one part."""
    import torch

    tensor = entry.make().detach().cpu().contiguous()
    if tuple(tensor.shape) != entry.shape or of_torch(tensor.dtype).file != entry.dtype:
        raise ValueError(
            f"{entry.name} was to be {entry.dtype} {list(entry.shape)}, "
            f"it is {tensor.dtype} {list(tensor.shape)}."
        )
    flat = tensor.reshape(-1)
    if flat.stride(0) != 1:
        # One number may have any stride and still call itself contiguous.
        flat = flat.clone(memory_format=torch.contiguous_format)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def write_file(path: Path, pieces: Iterable[memoryview | bytes]) -> int:
    """Write a new file and wait until the disk has it; its size. OSError may leave a part."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    total = 0
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = disk.system.write(handle, view[:BLOCK])  # type: ignore[arg-type]
                view = view[written:]
                total += written
        disk.system.sync(handle)
    finally:
        os.close(handle)
    return total
