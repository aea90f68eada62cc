"""Owns a KV cache in 8, 4 or 2 bits: its memory, and cutting it back to any length.

Which tokens are codes is kernels.kv_codes' rule; attention reads them there. It computes nothing
itself but what a deep cut takes back out of the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.engine.cache.contiguous import Rows
from core.files.config.decoder_config import DecoderConfig
from kernels import attention
from kernels.attention import quantized
from kernels.kv_codes import KVFormat
from kernels.kv_codes.codes import KVCodes, allocate, decode_keys, decode_values


class QuantizedCache(Rows):
    """Codes of old tokens and a ring of the newest ones in the engine's dtype.

    A cut by at most kernels.kv_codes.PASS_TOKENS tokens is as if they had never been said. A deeper
    one needs tokens in the ring that were only kept as codes: they come back as decoded.
    """

    def __init__(
        self,
        config: DecoderConfig,
        format: KVFormat,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        super().__init__(batch, capacity)
        outer = (config.num_layers, batch, config.num_kv_heads)
        self.format = format
        self.kernel_format = format.kernel_format
        self.codes: KVCodes = allocate(format, outer, config.head_dim, capacity, dtype, device)
        # The first token of each row that the ring still holds, as far as past cuts tell.
        self._held_from = [0] * batch

    def attend(
        self, layer: int, qkv: Tensor, start: attention.Start, heads: attention.Heads
    ) -> Tensor:
        """See Rows."""
        return quantized.attention(qkv, self.codes.layer(layer), start, heads)

    def bind(
        self, layer: int, qkv: Tensor, start: Tensor, heads: attention.Heads, out: Tensor
    ) -> Callable[[], object]:
        """See Rows."""
        return quantized.prepare(qkv, self.codes.layer(layer), start, heads, out)

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """See Rows."""
        before = self.lengths
        super().truncate(lengths)
        for row, (was, length) in enumerate(zip(before, self.lengths, strict=True)):
            held_from = max(self._held_from[row], was - self.codes.keys.shape[-2])
            needed = self.format.coded(length)
            if needed < held_from:
                self._restore(row, needed, min(held_from, length))
            self._held_from[row] = min(held_from, needed)

    def _restore(self, row: int, first: int, end: int) -> None:
        """Put tokens first <= t < end of a row back into the ring; `first` begins a block."""
        codes, size = self.codes.row(row), self.format.group_size
        for token in range(first, end, size):
            block = token // size
            slots = torch.arange(token, min(token + size, end)) % codes.keys.shape[-2]
            slots = slots.to(codes.keys.device)
            keys = decode_keys(
                codes.key_codes[..., block, :, :], codes.key_scale[..., block, :, :], self.format
            )
            values = decode_values(
                codes.value_codes[..., block, :, :],
                codes.value_scale[..., block, :, :, :],
                self.format,
                codes.dim,
            )
            dtype = codes.keys.dtype
            codes.keys[..., slots, :] = keys[..., : len(slots), :].to(dtype)
            codes.values[..., slots, :] = values[..., : len(slots), :].to(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes allocated: codes, scales and minima, and the ring."""
        return self.codes.nbytes
