"""Owns the keys and values of past tokens for the rows of a batch, and which kernel reads them.

It computes no attention. A cache in codes is core.engine.cache.quantized's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput
from core.files.config.decoder_config import DecoderConfig
from kernels import attention
from kernels.dtypes import FLOAT_OF


class Rows:
    """What every cache counts: `batch` rows of at most `capacity` tokens each.

    `length` is that of the longest row. `behind` int64 [batch] on the CPU says how many tokens each
    row has fewer, None where all have one length; both change by appending, which keeps the
    distances, and by `truncate`. `kernel_format` is what kernels of attention read, as the registry
    calls it.
    """

    kernel_format: str

    def __init__(self, batch: int, capacity: int) -> None:
        if batch < 1 or capacity < 1:
            raise BadInput(f"a cache needs batch >= 1 and capacity >= 1, not {batch}, {capacity}.")
        self.batch = batch
        self.capacity = capacity
        self.length = 0
        self.behind: Tensor | None = None
        # Steps bound to this cache's memory, see core.engine.passes.step.
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

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row holds."""
        return [self.length] * self.batch if self.behind is None else self._starts().tolist()

    @property
    def start(self) -> attention.Start:
        """The position of the next token: one for all rows, or int64 [batch]."""
        return self.length if self.behind is None else self._starts()

    def write_starts(self, to: Tensor) -> None:
        """The position of each row's next token into int64 [batch], wherever that lies; waits for
        no device.
        """
        if self.behind is None:
            to.fill_(self.length)
        else:
            # The driver has taken a copy when this returns.
            to.copy_(self._starts(), non_blocking=True)

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Forget every token from position `lengths` on: one for all rows, or one for each."""
        wanted = check_cut(self.lengths, lengths)
        self.length = max(wanted)
        even = min(wanted) == self.length
        self.behind = None if even else self.length - torch.tensor(wanted)

    def _starts(self) -> Tensor:
        assert self.behind is not None
        return self.length - self.behind

    def attend(
        self, layer: int, qkv: Tensor, start: attention.Start, heads: attention.Heads
    ) -> Tensor:
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


def check_cut(held: Sequence[int], lengths: int | Sequence[int]) -> list[int]:
    """The length that each row is cut to; BadInput unless each holds as many tokens."""
    wanted = [lengths] * len(held) if isinstance(lengths, int) else list(lengths)
    if len(wanted) != len(held):
        raise BadInput(f"a cache of {len(held)} rows cannot be cut to {len(wanted)} lengths.")
    for length, tokens in zip(wanted, held, strict=True):
        if not 0 <= length <= tokens:
            raise BadInput(f"cannot truncate a cache of {tokens} tokens to {length}.")
    return wanted


class KVCache(Rows):
    """Keys and values [layers, batch, kv heads, capacity, head_dim]."""

    def __init__(
        self, config: DecoderConfig, batch: int, capacity: int, dtype: torch.dtype, device: str
    ) -> None:
        super().__init__(batch, capacity)
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim)
        self.kernel_format = FLOAT_OF[str(dtype)]
        self.keys: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.values: Tensor = torch.zeros(shape, dtype=dtype, device=device)

    def attend(
        self, layer: int, qkv: Tensor, start: attention.Start, heads: attention.Heads
    ) -> Tensor:
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
