"""Owns one batch under way: sequences that a model serves together, an iteration at a time.

`LockStep` gives every sequence one token an iteration, `Speculative` as many as stand of those that
a proposer offers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from core.engine.protocol import TextEngine
from core.engine.serve.proposer import Proposer
from core.engine.serve.row_tokens import RowTokens
from core.engine.serve.sampling import draw, pick, probabilities
from core.engine.serve.sequence import Emitted, Sequence, Stats, collated
from core.engine.serve.verify import agree, verify


class LockStep:
    """Rows of one length that go on together until the longest is done.

    A row that ends early is computed on with the others, and nothing of it is emitted.
    """

    def __init__(self, engine: TextEngine, sequences: list[Sequence]) -> None:
        self.engine = engine
        self.sequences = sequences
        longest = max(sequence.request.max_new_tokens for sequence in sequences)
        self._ids = collated(sequences)
        self._cache = engine.new_cache(len(sequences), self._ids.shape[1] + longest)
        self._draw = _drawing(sequences)
        self._left = longest
        # Whether a row may end before the last one does.
        self._early = any(
            sequence.request.stop_ids or sequence.request.max_new_tokens < longest
            for sequence in sequences
        )
        self.done = False

    def step(self) -> Emitted:
        """One pass of the model."""
        logits = self.engine.forward(self._ids, self._cache, last_only=True)
        self._ids = chosen = self._draw(logits).cpu()
        tokens: list[list[int]] = chosen.tolist()
        now = time.perf_counter()
        self._left -= 1
        if self._early:
            tokens = [
                sequence.take(ids, now)
                for sequence, ids in zip(self.sequences, tokens, strict=True)
            ]
            self.done = all(sequence.done for sequence in self.sequences)
            return Emitted(self.sequences, tokens)
        for sequence, ids in zip(self.sequences, tokens, strict=True):
            sequence.new += ids
            sequence.stamps.append(now)
        if not self._left:
            self.done = True
            for sequence in self.sequences:
                sequence.done = True
        return Emitted(self.sequences, tokens)


class Speculative:
    """Rows that accept as many tokens as stand, each at its own position; one pass of the model an
    iteration verifies the proposals of all.
    """

    def __init__(
        self, engine: TextEngine, sequences: list[Sequence], proposer: Proposer, stats: Stats
    ) -> None:
        self.engine = engine
        self.sequences = sequences
        self.proposer = proposer
        capacity = max(
            len(sequence.request.prompt) + sequence.request.max_new_tokens for sequence in sequences
        )
        self._rows = RowTokens(sequences)
        self._cache = engine.new_cache(len(sequences), capacity)
        self._proposals = proposer.begin(len(sequences), capacity)
        self._greedy = all(sequence.request.sampling.greedy for sequence in sequences)
        self._read = False
        self._stats = stats

    @property
    def done(self) -> bool:
        """Whether every sequence has ended."""
        return all(sequence.done for sequence in self.sequences)

    def step(self) -> Emitted:
        """One pass of the model, behind as many of the proposer as it proposes tokens. The first
        only reads the prompts; the last token of a row needs no proposal.
        """
        count = 0
        if self._read:
            shortest = min(sequence.left for sequence in self.sequences if not sequence.done)
            count = min(self.proposer.tokens, shortest - 1)
        rows, width = self._rows, self.engine.vocab_size
        proposed, offers = self._proposals.propose(rows, count, width)
        cuts, ids = rows.unseen(self._cache.lengths, proposed, count)
        self._cache.truncate(cuts)
        logits = self.engine.forward(torch.tensor(ids), self._cache, last_only=count == 0)
        fresh = self._standing(logits[:, -count - 1 :], proposed, offers)
        now, stats, tokens = time.perf_counter(), self._stats, []
        for row, (sequence, ids_of) in enumerate(zip(self.sequences, fresh, strict=True)):
            if self._read and not sequence.done:
                stats.verified += 1
                stats.proposed += count
                stats.accepted += len(ids_of) - 1
            kept = sequence.take(ids_of, now)
            stats.verified_tokens += len(kept) if self._read else 0
            rows.tokens[row] += kept
            tokens.append(kept)
        self._read = True
        return Emitted(self.sequences, tokens)

    def _standing(
        self, logits: Tensor, proposed: list[list[int]], offers: Tensor | None
    ) -> list[list[int]]:
        if self._greedy:
            choices = logits.argmax(-1).tolist()
            return [agree(own, drafted) for own, drafted in zip(choices, proposed, strict=True)]
        assert offers is not None
        fresh: list[list[int]] = []
        for row, sequence in enumerate(self.sequences):
            if sequence.done:
                fresh.append([])
            elif sequence.request.sampling.greedy:
                fresh.append(agree(logits[row].argmax(-1).tolist(), proposed[row]))
            else:
                assert sequence.generator is not None
                wanted = probabilities(logits[row], sequence.request.sampling)
                fresh.append(verify(wanted, offers[row], proposed[row], sequence.generator))
        return fresh


def _drawing(sequences: list[Sequence]) -> Callable[[Tensor], Tensor]:
    """Draws ids int64 [B, 1] of logits [B, 1, V]; rows that share settings and a stream are drawn
    at once.
    """
    if all(sequence.request.sampling.greedy for sequence in sequences):
        return partial(torch.argmax, dim=-1)
    first = sequences[0]
    sampling = first.request.sampling
    if all(
        sequence.request.sampling == sampling and sequence.generator is first.generator
        for sequence in islice(sequences, 1, None)
    ):
        return lambda logits: draw(logits[:, -1], sampling, first.generator)[:, None]

    def alone(own: Tensor, sequence: Sequence) -> int:
        settings = sequence.request.sampling
        return pick(probabilities(own, settings), settings, sequence.generator)

    def each(logits: Tensor) -> Tensor:
        rows = zip(logits[:, -1], sequences, strict=True)
        return torch.tensor([[alone(own, sequence)] for own, sequence in rows])

    return each
