"""Speculation in one call, for tests: what was said, and what it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from core.engine.serve.proposer import Draft
from core.engine.serve.sampling import GREEDY, Sampling
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request, Sequence, Stats
from core.engine.serve.server import EngineServer


@dataclass(frozen=True)
class Speculation:
    """The new ids [B, N] (None where rows end apart), the sequences, and the server's counts."""

    sequences: list[Sequence]
    stats: Stats
    emitted: list[list[int]]

    @property
    def ids(self) -> torch.Tensor:
        return torch.tensor([one.new for one in self.sequences])


def speculate(
    target: Any,
    draft: Any,
    prompt_ids: torch.Tensor,
    max_new_tokens: int,
    draft_tokens: int = 4,
    sampling: Sampling = GREEDY,
    stop_ids: tuple[int, ...] = (),
    seeds: range | None = None,
) -> Speculation:
    """Serve the rows of `prompt_ids` in one batch; row i draws by `seeds[i]`, else by sampling's
    seed. Checks that the steps emit what the sequences hold.
    """
    server = EngineServer(target, Static(len(prompt_ids)), Draft(draft, draft_tokens))
    sequences = []
    for row, prompt in enumerate(prompt_ids):
        stream = None if seeds is None else torch.Generator().manual_seed(seeds[row])
        sequences.append(server.submit(Request(prompt, max_new_tokens, sampling, stop_ids, stream)))
    emitted: list[list[int]] = [[] for _ in sequences]
    while server.phase:
        for one, ids in zip(*server.step(), strict=True):
            emitted[one.id] += ids
    assert emitted == [one.new for one in sequences]
    return Speculation(sequences, server.stats(), emitted)
