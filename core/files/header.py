"""Owns reading a .safetensors header without the library: every tensor's place, checked.

Format: 8 bytes length (little endian), that many bytes of JSON, then the data. No weights are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files.jsonfile import parse_object
from kernels.dtypes import DTYPES

# The largest published checkpoints have about 100,000 tensors and 12 MB of header, all shards
# together; the format's own end, 100 MB, takes a parser minutes and gigabytes.
MAX_HEADER_BYTES = 32_000_000
MAX_TENSORS = 200_000
ITEM_BYTES = {dtype.file: dtype.bytes for dtype in DTYPES}
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: dtype as written there, shape, bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def read_header(path: Path) -> tuple[tuple[TensorEntry, ...], bytes]:
    """The tensors of `path` and the raw header; BadInput names the file and the tensor."""
    name = path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8:
                raise BadInput(f"{name} is empty or cut off: {size} bytes are no safetensors file.")
            if length > MAX_HEADER_BYTES:
                raise BadInput(
                    f"{name}: the header claims {length:,} bytes, more than the "
                    f"{MAX_HEADER_BYTES:,} allowed; this is no sound safetensors file."
                )
            if length > size - 8:
                raise BadInput(
                    f"{name} is cut off: its header claims {length:,} bytes, the file has {size:,}."
                )
            header = file.read(length)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}.") from None
    table = parse_object(f"{name} (header)", header, max_values=6 * MAX_TENSORS)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadInput(f"{name}: __metadata__ of the header must map names to texts.")
    if len(table) > MAX_TENSORS:
        raise BadInput(f"{name} lists {len(table):,} tensors, more than {MAX_TENSORS:,}.")
    return _entries(name, table, size - 8 - length), header


def _entries(file: str, table: dict[str, Any], data_bytes: int) -> tuple[TensorEntry, ...]:
    entries, spans = [], []
    for name, field in table.items():
        where = f"{file}: the tensor {name[:200]!r}"
        if not isinstance(field, dict) or not field:
            raise BadInput(f"{where} has no dtype, shape and data_offsets.")
        dtype: Any = field.get("dtype")
        shape: Any = field.get("shape")
        offsets: Any = field.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise BadInput(f"{where} has the dtype {dtype!r:.40}, which is not known.")
        if not _counts(shape) or len(shape) > 8:
            raise BadInput(f"{where}: shape must list at most 8 sizes, not {shape!r:.60}.")
        if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise BadInput(
                f"{where}: data_offsets must be two rising numbers, not {offsets!r:.60}."
            )
        if not _FIELDS.issuperset(field):
            unknown = next(key for key in field if key not in _FIELDS)
            raise BadInput(f"{where} has the unknown field {unknown[:80]!r}.")
        begin, end = offsets
        nbytes = math.prod(shape) * ITEM_BYTES[dtype]
        if end - begin != nbytes:
            raise BadInput(
                f"{where}: {shape} of {dtype} takes {nbytes:,} bytes, "
                f"data_offsets give {end - begin:,}."
            )
        if end > data_bytes:
            raise BadInput(
                f"{where} ends at byte {end:,} of {data_bytes:,}; {file} is cut off or damaged."
            )
        entries.append(TensorEntry(name, dtype, tuple(shape), nbytes))
        spans.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin < reached:
            raise BadInput(f"{file}: data_offsets of the tensor {name[:200]!r} overlap another's.")
        if begin > reached:
            raise BadInput(
                f"{file}: bytes {reached:,} to {begin:,}, before the tensor {name[:200]!r}, belong"
                " to no tensor."
            )
        reached = end
    if reached != data_bytes:
        last = f", behind the tensor {max(spans)[2][:200]!r}," if spans else ""
        raise BadInput(f"{file}: bytes {reached:,} to {data_bytes:,}{last} belong to no tensor.")
    return tuple(entries)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 60 for v in values)
