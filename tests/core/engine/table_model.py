"""Engines over a table, whose texts have a law that can be written down."""

from __future__ import annotations

import torch

from core.files.special_ids import SpecialIds


class TableModel:
    """An engine over a table: the next token depends on the last one only."""

    device = "cpu"
    special_ids = SpecialIds()
    max_positions = 1 << 20

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.vocab_size = logits.shape[1]

    def new_cache(self, batch: int, capacity: int) -> TableCache:
        return TableCache(batch, capacity)

    def forward(
        self, ids: torch.Tensor, cache: TableCache | None = None, last_only: bool = False
    ) -> torch.Tensor:
        assert cache is not None
        cache.lengths = [length + ids.shape[1] for length in cache.lengths]
        assert max(cache.lengths) <= cache.capacity
        return self.logits[ids[:, -1:] if last_only else ids]

    def choose(self, ids: torch.Tensor, cache: TableCache, last_only: bool = False) -> torch.Tensor:
        return self.forward(ids, cache, last_only).argmax(-1)

    def weight_bytes(self) -> int:
        return 0


class TableCache:
    """Only the lengths: a TableModel needs no past."""

    nbytes = 0

    def __init__(self, batch: int, capacity: int) -> None:
        self.lengths = [0] * batch
        self.capacity = capacity

    def truncate(self, lengths: list[int]) -> None:
        for wanted, length in zip(lengths, self.lengths, strict=True):
            assert 0 <= wanted <= length
        self.lengths = lengths


def pair(vocabulary: int, distance: float, seed: int = 0) -> tuple[TableModel, TableModel]:
    """A target and a draft whose logits differ by `distance`."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocabulary, vocabulary, generator=generator)
    noise = torch.randn(vocabulary, vocabulary, generator=generator)
    return TableModel(logits), TableModel(logits + distance * noise)
