"""Owns what every engine offers, so that measuring and techniques know no architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from core.engine.decoder import Decoder
    from core.engine.matrices import Matrix
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


class Engine(Protocol):
    """A loaded model, whatever runs it: what techniques and measuring may ask of its weights."""

    @property
    def device(self) -> str:
        """Where the weights lie."""

    @property
    def lean(self) -> Decoder | None:
        """The model as our own decoder, for what needs to know its layers; None for others."""

    @property
    def module(self) -> nn.Module | None:
        """The torch module that runs, for hooks and training; None for our own decoder."""

    @property
    def compute_format(self) -> str:
        """The format that multiplies ("bf16"): packed weights are widened to it first."""

    def kernel_formats(self) -> set[str]:
        """The formats of what kernels of ours multiply with; empty when none of them is used."""

    def matrices(self) -> list[Matrix]:
        """The matrices that can be read and replaced, in the order of the forward pass."""

    def packed(self) -> Mapping[str, str]:
        """The format of every matrix that is not dense, by name."""

    def tensors(self) -> Iterator[tuple[str, str, Tensor]]:
        """Name, storage format and tensor of every weight; tensors may share memory."""

    def weight_bytes(self) -> int:
        """Bytes resident for the weights, shared memory counted once."""

    def table_bytes(self) -> int:
        """Bytes of what was computed once and is kept beside the weights: rotary tables."""


@runtime_checkable
class TextEngine(Engine, Protocol):
    """A causal language model that can be run step by step."""

    @property
    def special_ids(self) -> SpecialIds:
        """The ids that begin and end a text."""

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

    def choose(self, ids: Tensor, cache: Any, last_only: bool = False) -> Tensor:
        """The likeliest token behind each position, int64 [B, T] or [B, 1]: forward's argmax, on
        the engine's device, without waiting for a GPU.

        Ids on the CPU are checked as in `forward`. Ids on a GPU are not looked at: they must come
        from a model whose vocabulary is not larger. On a GPU the result may be written again by the
        cache's next pass.
        """

    def looked_up_bytes(self) -> int:
        """Bytes of the weights that are looked up row by row and never multiplied."""


@runtime_checkable
class ImageEngine(Engine, Protocol):
    """An image classifier."""

    classes: int

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 1, 8, 8]."""
