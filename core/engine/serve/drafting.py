"""Owns a draft model at work for one batch: its cache, and the tokens that it draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.engine.protocol import TextEngine
from core.engine.serve.row_tokens import RowTokens
from core.engine.serve.sampling import pick, probabilities


class Drafting:
    """See core.engine.serve.proposer.Proposals. `cache` is an empty one of the engine's."""

    def __init__(self, engine: TextEngine, cache: Any) -> None:
        self.engine = engine
        self.cache = cache

    def propose(self, rows: RowTokens, count: int, width: int) -> tuple[Tensor, Tensor | None]:
        """See Proposals; a token that the draft does not have is never offered."""
        batch = len(rows.sequences)
        greedy = all(sequence.request.sampling.greedy for sequence in rows.sequences)
        if not count:
            drafted = torch.zeros(batch, 0, dtype=torch.int64)
            return drafted, None if greedy else torch.zeros(batch, 0, width)
        most = self.engine.vocab_size
        cuts, unseen = rows.unseen(self.cache.lengths, 0, count - 1)
        self.cache.truncate(cuts)
        ids = torch.tensor([[token if token < most else 0 for token in row] for row in unseen])
        if greedy:
            return self._likeliest(ids, count, width), None
        return self._drawn(rows, ids, count, width)

    def _likeliest(self, ids: Tensor, count: int, width: int) -> Tensor:
        """The tokens stay where the draft chooses them: nobody waits between its passes."""
        chosen = []
        for _ in range(count):
            if self.engine.vocab_size > width:
                logits = self.engine.forward(ids, self.cache, last_only=True)
                ids = logits[..., :width].argmax(-1)
            else:
                ids = self.engine.choose(ids, self.cache, last_only=True)
            # The next pass may write there.
            chosen.append(ids.clone())
        return torch.cat(chosen, dim=1)

    def _drawn(
        self, rows: RowTokens, ids: Tensor, count: int, width: int
    ) -> tuple[Tensor, Tensor | None]:
        drafted: list[Tensor] = []
        offers: list[Tensor] = []
        for _ in range(count):
            logits = self.engine.forward(ids, self.cache, last_only=True)[:, -1, :width]
            shares = [
                probabilities(logits[row], sequence.request.sampling)
                for row, sequence in enumerate(rows.sequences)
            ]
            offers.append(
                torch.nn.functional.pad(torch.stack(shares), (0, width - logits.shape[-1]))
            )
            ids = torch.tensor(
                [
                    [pick(own, sequence.request.sampling, sequence.generator)]
                    for own, sequence in zip(offers[-1], rows.sequences, strict=True)
                ]
            )
            drafted.append(ids)
        return torch.cat(drafted, dim=1), torch.stack(offers, dim=1)
