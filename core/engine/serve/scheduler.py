"""Owns which waiting sequences a server starts next. It runs no model and needs no torch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.engine.serve.sequence import Sequence


class Scheduler(Protocol):
    """Decides on admission before every iteration.

    A scheduler with a waiting window returns nothing while it waits; one that batches at the level
    of iterations returns sequences while others run.
    """

    @property
    def batch(self) -> int:
        """The most sequences that run together."""

    def admit(self, waiting: deque[Sequence], running: int) -> list[Sequence]:
        """Take the sequences that start now out of `waiting`; `running` others are under way."""


@dataclass(frozen=True)
class Static:
    """Batches that run to their end: the oldest waiting sequence and up to `batch` - 1 others whose
    prompts have its length, when nothing runs any more.
    """

    batch: int = 1

    def admit(self, waiting: deque[Sequence], running: int) -> list[Sequence]:
        """See Scheduler."""
        if running or not waiting:
            return []
        shape = waiting[0].request.prompt.shape
        chosen: list[Sequence] = []
        others: list[Sequence] = []
        while waiting and len(chosen) < self.batch:
            sequence = waiting.popleft()
            same = sequence.request.prompt.shape == shape
            (chosen if same else others).append(sequence)
        waiting.extendleft(reversed(others))
        return chosen


STATIC = Static()
