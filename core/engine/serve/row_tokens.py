"""Owns the tokens of a batch whose rows have lengths of their own, and which of them a model reads
next so that all rows read equally many.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from itertools import islice

import torch

from core.engine.serve.sequence import Sequence


class RowTokens:
    """The prompt and new tokens of each sequence of a batch."""

    def __init__(self, sequences: list[Sequence]) -> None:
        self.sequences = sequences
        prompts = [sequence.request.prompt for sequence in sequences]
        # Prompts that lie on a GPU are fetched at once.
        ids = iter(torch.cat(prompts).tolist())
        self.tokens: list[list[int]] = [list(islice(ids, len(prompt))) for prompt in prompts]

    def unseen(
        self, lengths: Several[int], count: int, later: int = 0
    ) -> tuple[list[int], list[list[int]]]:
        """How long each row of a cache that holds `lengths` tokens must be cut, and the ids that
        each reads from there: what it has not seen, and 0 in the place of `count` proposed tokens.
        `later` more will be read before the next cut.

        A row whose cache is ahead of others' reads known tokens again. A row that is done only
        keeps the others company: what it reads fits its cache and means nothing.
        """
        known = [
            min(length, len(tokens) - 1)
            for length, tokens in zip(lengths, self.tokens, strict=True)
        ]
        behind = max(
            len(tokens) - length
            for tokens, length, sequence in zip(self.tokens, known, self.sequences, strict=True)
            if not sequence.done
        )
        cuts, ids = [], []
        for tokens, length, sequence in zip(self.tokens, known, self.sequences, strict=True):
            if sequence.done:
                cut = min(length, max(0, len(tokens) - behind - count - later))
                read = (tokens[cut:] + [0] * (behind + count))[: behind + count]
            else:
                cut = len(tokens) - behind
                read = tokens[cut:] + [0] * count
            cuts.append(cut)
            ids.append(read)
        return cuts, ids
