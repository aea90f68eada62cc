"""Owns a draft model at work for one batch: its cache, and the tokens that it draws."""

from __future__ import annotations

import torch
from torch import Tensor

from core.engine.protocol import TextEngine
from core.engine.serve.row_tokens import RowTokens
from core.engine.serve.sampling import pick, probabilities


class Drafting:
    """See core.engine.serve.proposer.Proposals."""

    def __init__(self, engine: TextEngine, batch: int, capacity: int) -> None:
        self.engine = engine
        self.cache = engine.new_cache(batch, capacity)

    def propose(
        self, rows: RowTokens, count: int, width: int
    ) -> tuple[list[list[int]], Tensor | None]:
        """See Proposals; a token that the draft does not have is never offered."""
        drafted: list[list[int]] = [[] for _ in rows.sequences]
        greedy = all(sequence.request.sampling.greedy for sequence in rows.sequences)
        if not count:
            return drafted, None if greedy else torch.zeros(len(drafted), 0, width)
        most = self.engine.vocab_size
        cuts, unseen = rows.unseen(self.cache.lengths, drafted, 0, count - 1)
        self.cache.truncate(cuts)
        ids = torch.tensor([[token if token < most else 0 for token in row] for row in unseen])
        offers: list[Tensor] = []
        for _ in range(count):
            logits = self.engine.forward(ids, self.cache, last_only=True)[:, -1, : min(width, most)]
            if greedy:
                ids = logits.argmax(-1, keepdim=True).cpu()
            else:
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
            for row, token in zip(drafted, ids.tolist(), strict=True):
                row += token
        return drafted, None if greedy else torch.stack(offers, dim=1)
