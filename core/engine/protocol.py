"""Owns what every engine offers, so that measuring and techniques know no architecture."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from core.files.special_ids import SpecialIds


@runtime_checkable
class Cache(Protocol):
    """Keys and values of past tokens."""

    @property
    def lengths(self) -> Several[int]:
        """Tokens that each row holds."""

    @property
    def nbytes(self) -> int:
        """Bytes that the cache occupies."""

    def truncate(self, lengths: Several[int]) -> None:
        """Forget, row by row, every token from position `lengths[row]` on; BadInput when a row
        holds fewer.
        """


@runtime_checkable
class TextEngine(Protocol):
    """A causal language model that can be run step by step."""

    device: str
    special_ids: SpecialIds

    @property
    def vocab_size(self) -> int:
        """Number of logits per position."""

    @property
    def max_positions(self) -> int:
        """Positions that the model was made for."""

    def new_cache(self, batch: int, capacity: int) -> Any:
        """An empty Cache for `batch` rows of at most `capacity` tokens."""

    def forward(self, ids: Tensor, cache: Any = None, last_only: bool = False) -> Tensor:
        """Logits float32 [B, T, V], or [B, 1, V]; appends ids int64 [B, T] to the cache."""

    def weight_bytes(self) -> int:
        """Bytes resident for the weights, shared memory counted once."""


@runtime_checkable
class ImageEngine(Protocol):
    """An image classifier."""

    classes: int

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 1, 8, 8]."""

    def weight_bytes(self) -> int:
        """Bytes resident for the weights."""
