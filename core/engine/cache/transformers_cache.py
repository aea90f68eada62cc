"""Owns the cache behind a transformers model: it counts its tokens and can forget the last ones.

It keeps the ids as well: what transformers' layers cannot give back is computed again from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.engine.cache.contiguous import check_cut
from core.errors import BadInput


class TransformersCache:
    """A transformers DynamicCache for `batch` rows of at most `capacity` tokens.

    `ids` int64 [batch, length], on the model's device, are the tokens said so far. `inner` holds
    the keys and values of `held` of them, all or none; `far` says whether these are turned as in a
    text that is longer than the original positions (core.engine.positions).

    Architectures pad, mask and count positions in ways of their own. So rows that are cut to
    different lengths part for good: `parts` then holds one cache of a single row for each, which
    reads its row again.
    """

    def __init__(self, config: Any, batch: int, capacity: int, device: str = "cpu") -> None:
        self.batch = batch
        self.capacity = capacity
        self.ids = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        self.far = False
        self.parts: list[TransformersCache] = []
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Hold no keys and values; the ids stay."""
        from transformers import DynamicCache

        from core.engine.cache.rewinding_layer import with_rewinding

        self.inner = with_rewinding(DynamicCache(config=self._config))
        self.held = 0

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row holds."""
        if self.parts:
            return [part.length for part in self.parts]
        return [self.length] * self.batch

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(part.length for part in self.parts) if self.parts else self.ids.shape[1]

    def check_room(self, batch: int, tokens: int) -> None:
        """Raise BadInput unless `tokens` more tokens of `batch` rows fit."""
        if batch != self.batch or self.length + tokens > self.capacity:
            raise BadInput(
                f"the cache was made for {self.batch} rows of {self.capacity} tokens and holds "
                f"{self.length}; {[batch, tokens]} more do not fit."
            )

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """See core.engine.protocol.Cache."""
        from core.engine.cache.rewinding_layer import forget

        wanted = check_cut(self.lengths, lengths)
        if not self.parts and min(wanted) < max(wanted):
            self._part()
        if self.parts:
            for part, length in zip(self.parts, wanted, strict=True):
                part.truncate(length)
            return
        length = wanted[0]
        self.ids = self.ids[:, :length]
        if self.held > length:
            if forget(self.inner, self.held - length):
                self.held = length
            else:
                self.clear()

    def _part(self) -> None:
        for row in range(self.batch):
            part = TransformersCache(self._config, 1, self.capacity, str(self.ids.device))
            part.ids = self.ids[row : row + 1]
            self.parts.append(part)
        self.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values now held."""
        total = sum(part.nbytes for part in self.parts)
        for layer in self.inner.layers:
            for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                total += tensor.nbytes if isinstance(tensor, Tensor) else 0
        return total
