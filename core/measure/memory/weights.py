"""The weights as they lie in memory: every tensor of an engine with its storage format and bytes.

Read from the tensors' own storages: what two names share counts once, and a view of a larger
storage counts what it keeps alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.engine.protocol import Engine

    pass


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: `format` is the dtype's name or that of the packed matrix it belongs to; `nbytes`
    is 0 when its memory was counted under a name before it.
    """

    name: str
    format: str
    nbytes: int


def stored(engine: Engine) -> tuple[StoredTensor, ...]:
    """Every weight tensor of a lean decoder, of a transformers model or of a torch module."""
    seen: set[int] = set()
    tensors = []
    for name, format_, tensor in engine.tensors():
        storage = tensor.untyped_storage()
        fresh = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        tensors.append(StoredTensor(name, format_, storage.nbytes() if fresh else 0))
    return tuple(tensors)


def by_format(tensors: tuple[StoredTensor, ...]) -> dict[str, int]:
    """Bytes by storage format."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.format] = sizes.get(tensor.format, 0) + tensor.nbytes
    return {name: size for name, size in sizes.items() if size}
