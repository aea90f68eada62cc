"""Owns the seam of everything that serves: requests go in, tokens come out, one iteration at a
time. Measuring times a Server and nothing else, whoever implements it.

`EngineServer` serves a language model of ours. Which sequences start together is the scheduler's
(core.engine.serve.scheduler), what is tried ahead of the model the proposer's
(core.engine.serve.proposer), how a batch goes on core.engine.serve.batch's.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Protocol

from core.engine.protocol import TextEngine
from core.engine.serve import DECODE, PREFILL
from core.engine.serve.batch import LockStep, Speculative
from core.engine.serve.caches import Caches
from core.engine.serve.proposer import Proposer
from core.engine.serve.scheduler import STATIC, Scheduler
from core.engine.serve.sequence import Emitted, Request, Sequence, Stats
from core.errors import BadInput


class Server(Protocol):
    """Serves requests an iteration at a time."""

    @property
    def phase(self) -> str:
        """What the next step does: "prefill" reads prompts (or classifies images), "decode" goes on
        with sequences, "" has nothing to do.
        """

    def submit(self, request: Request, arrived_at: float | None = None) -> Sequence:
        """Take a request in; BadInput where the model cannot serve it. `arrived_at` is now unless
        given.
        """

    def step(self) -> Emitted:
        """One iteration: the new tokens of each sequence that took part, none where there was
        nothing to do.
        """

    def stats(self) -> Stats:
        """What has been done so far."""


class EngineServer:
    """A Server over a TextEngine: batches run one after another."""

    def __init__(
        self,
        engine: TextEngine,
        scheduler: Scheduler = STATIC,
        proposer: Proposer | None = None,
    ) -> None:
        self.engine = engine
        self.scheduler = scheduler
        self.proposer = proposer
        self._waiting: deque[Sequence] = deque()
        self._batch: LockStep | Speculative | None = None
        self._caches = Caches()
        self._submitted = 0
        self._stats = Stats()

    @property
    def phase(self) -> str:
        """See Server."""
        if self._batch is not None:
            return DECODE
        return PREFILL if self._waiting else ""

    def submit(self, request: Request, arrived_at: float | None = None) -> Sequence:
        """See Server."""
        check(self.engine, request)
        for engine in self.proposer.engines if self.proposer is not None else ():
            check(engine, request)
        generator = request.generator
        if generator is None and not request.sampling.greedy:
            generator = request.sampling.generator(self.engine.device)
        arrived_at = time.perf_counter() if arrived_at is None else arrived_at
        sequence = Sequence(self._submitted, request, arrived_at, generator)
        self._submitted += 1
        self._waiting.append(sequence)
        return sequence

    def step(self) -> Emitted:
        """See Server."""
        batch = self._batch
        if batch is None:
            sequences = self.scheduler.admit(self._waiting, 0)
            if not sequences:
                return Emitted([], [])
            batch = self._batch = self._begin(sequences)
        emitted = batch.step()
        self._stats.passes += 1
        if batch.done:
            self._batch = None
        return emitted

    def stats(self) -> Stats:
        """See Server."""
        return replace(self._stats)

    def _begin(self, sequences: list[Sequence]) -> LockStep | Speculative:
        now = time.perf_counter()
        for sequence in sequences:
            sequence.started_at = now
            sequence.together = len(sequences)
        if self.proposer is None:
            return LockStep(self.engine, sequences, self._caches)
        return Speculative(self.engine, sequences, self.proposer, self._stats, self._caches)


def check(engine: TextEngine, request: Request) -> None:
    """Raise BadInput unless the prompt and the new tokens suit the engine."""
    shape, new = request.prompt.shape, request.max_new_tokens
    if len(shape) != 1 or not shape[0]:
        raise BadInput(f"the prompt must be ids [T] with T >= 1, not {list(shape)}.")
    if new < 1:
        raise BadInput(f"max_new_tokens must be 1 or more, not {new}.")
    if shape[0] + new > engine.max_positions:
        raise BadInput(
            f"{shape[0]} prompt and {new} new tokens exceed the model's"
            f" {engine.max_positions} positions; use a shorter prompt or fewer tokens."
        )
