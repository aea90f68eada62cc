"""The weights as they lie in memory: every tensor of an engine with its storage format and bytes.

Read from the tensors' own storages: what two names share counts once, and a view of a larger
storage counts what it keeps alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernels.dtypes import FLOAT_OF

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: `format` is the dtype's name or that of the packed matrix it belongs to; `nbytes`
    is 0 when its memory was counted under a name before it.
    """

    name: str
    format: str
    nbytes: int


def stored(engine: Any) -> tuple[StoredTensor, ...]:
    """Every weight tensor of a lean decoder, of a transformers model or of a torch module."""
    seen: set[int] = set()
    found = []
    for name, format_, tensor in _tensors(engine):
        storage = tensor.untyped_storage()
        fresh = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        found.append(StoredTensor(name, format_, storage.nbytes() if fresh else 0))
    return tuple(found)


def by_format(tensors: tuple[StoredTensor, ...]) -> dict[str, int]:
    """Bytes by storage format."""
    sizes: dict[str, int] = {}
    for one in tensors:
        sizes[one.format] = sizes.get(one.format, 0) + one.nbytes
    return {name: size for name, size in sizes.items() if size}


def tables(engine: Any) -> int:
    """Bytes of what an engine computed once and keeps: rotary cosines and sines."""
    kept = (getattr(engine, name, None) for name in ("_cos", "_sin"))
    return sum(int(tensor.nbytes) for tensor in kept if tensor is not None)


def _tensors(engine: Any) -> Iterator[tuple[str, str, Tensor]]:
    if not hasattr(engine, "final_norm"):
        module = getattr(engine, "model", engine)
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            yield name, _dtype(tensor), tensor
        return
    yield "embedding", _dtype(engine.embedding), engine.embedding
    for name, linear in engine.linears():
        for i, tensor in enumerate(linear.tensors()):
            yield f"{name}.{i}" if i else name, linear.format, tensor
    for i, layer in enumerate(engine.layers):
        for name, value in vars(layer).items():
            if hasattr(value, "untyped_storage"):
                yield f"layers.{i}.{name}", _dtype(value), value
    yield "final_norm", _dtype(engine.final_norm), engine.final_norm


def _dtype(tensor: Tensor) -> str:
    name = str(tensor.dtype)
    return FLOAT_OF.get(name, name.removeprefix("torch."))
