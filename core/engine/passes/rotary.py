"""Owns a decoder's rotary tables: computed once, longer ones when more positions are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Rotary:
    """cos and sin float32 [positions, dim / 2] of the angles at `frequencies`.

    Tables that were handed out stay as they are, whatever is asked for later.
    """

    def __init__(self, frequencies: Sequence[float], device: str) -> None:
        self._frequencies, self._device = frequencies, device
        self._cos = self._sin = torch.empty(0)

    def tables(self, positions: int) -> tuple[Tensor, Tensor]:
        """(cos, sin) for at least `positions` positions."""
        if self._cos.shape[0] < positions:
            rows = 1 << (positions - 1).bit_length()
            frequencies = torch.tensor(self._frequencies, dtype=torch.float32)
            angles = torch.arange(rows, dtype=torch.float32)[:, None] * frequencies
            self._cos, self._sin = angles.cos().to(self._device), angles.sin().to(self._device)
        return self._cos, self._sin

    @property
    def nbytes(self) -> int:
        """Bytes of both tables."""
        return self._cos.nbytes + self._sin.nbytes
