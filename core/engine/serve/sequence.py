"""Owns a request, the sequence that it becomes while it is served, and what one step emits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.engine.serve.sampling import GREEDY, Sampling


@dataclass(frozen=True, eq=False)
class Request:
    """What a client asks: `max_new_tokens` ids behind `prompt` int64 [T], or the class of an image
    float32 [1, 8, 8].

    The text ends early at the first of `stop_ids`; a benchmark asks for a number of tokens and
    gives none. Requests that share a `generator` draw from one random stream in the order of their
    rows; None gives the request a stream of its own from `sampling.seed`.
    """

    prompt: Tensor
    max_new_tokens: int = 1
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    generator: torch.Generator | None = None


class Sequence:
    """A request while it is served: its new ids and when each was there.

    Times are seconds of time.perf_counter. A token counts as there when its id is known to the
    host. Sequences that began in one batch have the same `started_at`, and `together` says how many
    they were.
    """

    __slots__ = (
        "arrived_at",
        "done",
        "generator",
        "id",
        "new",
        "request",
        "stamps",
        "started_at",
        "together",
    )

    def __init__(
        self, id: int, request: Request, arrived_at: float, generator: torch.Generator | None = None
    ) -> None:
        self.id = id
        self.request = request
        self.generator = generator
        self.new: list[int] = []
        self.stamps: list[float] = []
        self.arrived_at = arrived_at
        self.started_at = 0.0
        self.together = 0
        self.done = False

    def take(self, ids: list[int], now: float) -> list[int]:
        """Append new ids up to the request's end; those that count, none once it is done."""
        if self.done:
            return []
        request = self.request
        ids = ids[: request.max_new_tokens - len(self.new)]
        for at, token in enumerate(ids):
            if token in request.stop_ids:
                ids, self.done = ids[: at + 1], True
                break
        self.new += ids
        self.stamps += [now] * len(ids)
        self.done = self.done or len(self.new) == request.max_new_tokens
        return ids

    @property
    def position(self) -> int:
        """Tokens of the prompt and new ones."""
        return len(self.request.prompt) + len(self.new)

    @property
    def left(self) -> int:
        """New tokens that may still follow."""
        return 0 if self.done else self.request.max_new_tokens - len(self.new)

    @property
    def first_at(self) -> float:
        """When the first new token was there."""
        return self.stamps[0]

    @property
    def finished_at(self) -> float:
        """When the last new token was there."""
        return self.stamps[-1]

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds per token after the first; None for a single token."""
        following = len(self.stamps) - 1
        return (self.stamps[-1] - self.stamps[0]) / following if following else None


def collated(sequences: list[Sequence]) -> Tensor:
    """The prompts [B, ...] of sequences whose prompts have one shape; a view of a single one."""
    if len(sequences) == 1:
        return sequences[0].request.prompt[None]
    return torch.stack([sequence.request.prompt for sequence in sequences])


class Emitted(NamedTuple):
    """The new ids of one step: `tokens[i]` belong to `sequences[i]`, none for one that is done."""

    sequences: list[Sequence]
    tokens: list[list[int]]


@dataclass
class Stats:
    """What a server has done so far.

    `passes` of the model, prompts included. Of speculation, counted for each sequence alone:
    `verified` steps that checked proposals, the `verified_tokens` that they gave, the `proposed`
    and the `accepted` tokens.
    """

    passes: int = 0
    verified: int = 0
    verified_tokens: int = 0
    proposed: int = 0
    accepted: int = 0
