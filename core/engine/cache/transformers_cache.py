"""Owns the cache behind a transformers model: it counts its tokens and can forget the last ones.

It keeps the ids as well: what transformers' layers cannot give back is computed again from them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput


class TransformersCache:
    """A transformers DynamicCache for `batch` rows of at most `capacity` tokens.

    `ids` int64 [batch, length] are the tokens said so far. `inner` holds the keys and values of
    `held` of them, all or none; `far` says whether these are turned as in a text that is longer
    than the original positions (core.engine.positions).
    """

    def __init__(self, config: Any, batch: int, capacity: int) -> None:
        self.batch = batch
        self.capacity = capacity
        self.ids = torch.zeros(batch, 0, dtype=torch.int64)
        self.far = False
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Hold no keys and values; the ids stay."""
        from transformers import DynamicCache

        from core.engine.cache.rewinding_layer import with_rewinding

        self.inner = with_rewinding(DynamicCache(config=self._config))
        self.held = 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self.ids.shape[1]

    def check_room(self, batch: int, tokens: int) -> None:
        """Raise BadInput unless `tokens` more tokens of `batch` rows fit."""
        if batch != self.batch or self.length + tokens > self.capacity:
            raise BadInput(
                f"the cache was made for {self.batch} rows of {self.capacity} tokens and holds "
                f"{self.length}; {[batch, tokens]} more do not fit."
            )

    def truncate(self, length: int) -> None:
        """See core.engine.protocol.Cache."""
        from core.engine.cache.rewinding_layer import forget

        if not 0 <= length <= self.length:
            raise BadInput(f"cannot truncate a cache of {self.length} tokens to {length}.")
        self.ids = self.ids[:, :length]
        if self.held > length:
            if forget(self.inner, self.held - length):
                self.held = length
            else:
                self.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values now held."""
        total = 0
        for layer in self.inner.layers:
            for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                total += tensor.nbytes if isinstance(tensor, Tensor) else 0
        return total
