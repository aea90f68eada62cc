"""Owns the keys and values of past tokens for a static batch, and which kernel reads them.

It computes no attention. A cache in codes is core.engine.cache.quantized's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput
from core.files.config.decoder_config import DecoderConfig
from kernels import attention


class Rows:
    """What every cache counts: `batch` rows of one length, at most `capacity` tokens each."""

    def __init__(self, batch: int, capacity: int) -> None:
        if batch < 1 or capacity < 1:
            raise BadInput(f"a cache needs batch >= 1 and capacity >= 1, not {batch}, {capacity}.")
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

    def attend(self, layer: int, qkv: Tensor, start: int, heads: attention.Heads) -> Tensor:
        """Append a layer's new tokens at `start` and attend; see kernels.attention.attention."""
        raise NotImplementedError

    def bind(
        self, layer: int, qkv: Tensor, start: Tensor, heads: attention.Heads, out: Tensor
    ) -> Callable[[], object]:
        """`attend` as a call for repeated steps; see kernels.attention.prepare."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        raise NotImplementedError


class KVCache(Rows):
    """Keys and values [layers, batch, kv heads, capacity, head_dim]; all rows have one length."""

    def __init__(
        self, config: DecoderConfig, batch: int, capacity: int, dtype: torch.dtype, device: str
    ) -> None:
        super().__init__(batch, capacity)
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim)
        self.keys: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.values: Tensor = torch.zeros(shape, dtype=dtype, device=device)

    def attend(self, layer: int, qkv: Tensor, start: int, heads: attention.Heads) -> Tensor:
        """See Rows."""
        return attention.attention(qkv, self.keys[layer], self.values[layer], start, heads)

    def bind(
        self, layer: int, qkv: Tensor, start: Tensor, heads: attention.Heads, out: Tensor
    ) -> Callable[[], object]:
        """See Rows."""
        return attention.prepare(qkv, self.keys[layer], self.values[layer], start, heads, out)

    @property
    def nbytes(self) -> int:
        """See Rows."""
        return 2 * self.keys.numel() * self.keys.element_size()
