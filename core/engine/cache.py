"""Owns the keys and values of past tokens for a static batch. It computes no attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.engine.config import DecoderConfig
from core.errors import BadInput


class KVCache:
    """Keys and values [layers, batch, kv heads, capacity, head_dim]; all rows have one length."""

    def __init__(
        self, config: DecoderConfig, batch: int, capacity: int, dtype: torch.dtype, device: str
    ) -> None:
        if batch < 1 or capacity < 1:
            raise BadInput(f"a cache needs batch >= 1 and capacity >= 1, not {batch}, {capacity}.")
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim)
        self.keys: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.values: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.batch = batch
        self.capacity = capacity
        self.length = 0
        # Steps bound to this cache's memory, see core.engine.step.
        self.programs: dict[int, Any] = {}

    def check_room(self, batch: int, tokens: int) -> None:
        """Raise BadInput unless `tokens` more tokens of `batch` rows fit."""
        if batch != self.batch:
            raise BadInput(f"the cache was made for a batch of {self.batch}, not {batch}.")
        if self.length + tokens > self.capacity:
            raise BadInput(
                f"the cache holds {self.length} of {self.capacity} tokens, {tokens} more do not "
                "fit; make it with a larger capacity."
            )

    def truncate(self, length: int) -> None:
        """Forget every token from position `length` on."""
        if not 0 <= length <= self.length:
            raise BadInput(f"cannot truncate a cache of {self.length} tokens to {length}.")
        self.length = length

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return 2 * self.keys.numel() * self.keys.element_size()
