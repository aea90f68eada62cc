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
from core.engine.serve.caches import Caches
from core.engine.serve.proposer import Proposer
from core.engine.serve.readback import Readback
from core.engine.serve.row_tokens import RowTokens
from core.engine.serve.sampling import draw, pick, probabilities
from core.engine.serve.sequence import Emitted, Sequence, Stats, collated
from core.engine.serve.verify import agree, verify


class LockStep:
    """Rows of one length that go on together until the longest is done.

    A row that ends early is computed on with the others, and nothing of it is emitted.

    On a GPU the likeliest tokens stay there as the next pass's input, and where no row may end
    early that pass is queued before the host waits for them: the GPU does not wait for Python.
    """

    # Where passes are queued ahead.
    ahead_on = ("cuda",)

    def __init__(self, engine: TextEngine, sequences: list[Sequence], caches: Caches) -> None:
        self.engine = engine
        self.sequences = sequences
        longest = max(sequence.request.max_new_tokens for sequence in sequences)
        self._ids = collated(sequences)
        self._cache = caches.lend(engine, len(sequences), self._ids.shape[1] + longest)
        self._greedy = _all_greedy(sequences)
        self._draw = _drawing(sequences)
        self._left = longest
        # Whether a row may end before the last one does.
        self._early = any(
            sequence.request.stop_ids or sequence.request.max_new_tokens < longest
            for sequence in sequences
        )
        self._ahead = (
            self._greedy and not self._early and engine.device.partition(":")[0] in self.ahead_on
        )
        self._queued: Readback | None = None
        self._prompt_read = False
        self.done = False

    def step(self) -> Emitted:
        """The ids of one pass of the model."""
        coming = self._queued or self._pass()
        self._left -= 1
        self._queued = self._pass() if self._ahead and self._left else None
        tokens = coming.wait()
        now = time.perf_counter()
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

    def _pass(self) -> Readback:
        """Queue one pass of the model."""
        if self._greedy and self._prompt_read:
            self._ids = self.engine.choose(self._ids, self._cache, last_only=True)
        else:
            chosen = self._draw(self.engine.forward(self._ids, self._cache, last_only=True))
            self._ids = chosen if self._greedy else chosen.cpu()
            self._prompt_read = True
        return Readback(self._ids)


class Speculative:
    """Rows that accept as many tokens as stand, each at its own position; one pass of the model an
    iteration verifies the proposals of all.
    """

    def __init__(
        self,
        engine: TextEngine,
        sequences: list[Sequence],
        proposer: Proposer,
        stats: Stats,
        caches: Caches,
    ) -> None:
        self.engine = engine
        self.sequences = sequences
        self.proposer = proposer
        capacity = max(
            len(sequence.request.prompt) + sequence.request.max_new_tokens for sequence in sequences
        )
        self._rows = RowTokens(sequences)
        self._cache = caches.lend(engine, len(sequences), capacity)
        self._proposals = proposer.begin(len(sequences), capacity, caches)
        self._greedy = _all_greedy(sequences)
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
        cuts, unseen = rows.unseen(self._cache.lengths, count)
        self._cache.truncate(cuts)
        ids = torch.tensor(unseen)
        if count:
            ids = ids.to(proposed.device, non_blocking=True)
            ids[:, -count:] = proposed
        if self._greedy:
            fresh = self._agreeing(ids, proposed)
        else:
            logits = self.engine.forward(ids, self._cache, last_only=count == 0)
            fresh = self._standing(logits[:, -count - 1 :], proposed.tolist(), offers)
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

    def _agreeing(self, ids: Tensor, proposed: Tensor) -> list[list[int]]:
        """What stands where every row is greedy; the host reads once."""
        count = proposed.shape[1]
        choices = self.engine.choose(ids, self._cache, last_only=count == 0)[:, -count - 1 :]
        both = torch.cat((proposed.to(choices.device), choices), dim=1).tolist()
        return [agree(own[count:], own[:count]) for own in both]

    def _standing(
        self, logits: Tensor, proposed: list[list[int]], offers: Tensor | None
    ) -> list[list[int]]:
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


def _all_greedy(sequences: list[Sequence]) -> bool:
    return all(sequence.request.sampling.greedy for sequence in sequences)


def _drawing(sequences: list[Sequence]) -> Callable[[Tensor], Tensor]:
    """Draws ids int64 [B, 1] of logits [B, 1, V]; rows that share settings and a stream are drawn
    at once.
    """
    if _all_greedy(sequences):
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
