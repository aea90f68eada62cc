"""Owns text without a clock: a call that submits prompts to a server and waits for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from core.engine.protocol import TextEngine
from core.engine.serve.proposer import Proposer
from core.engine.serve.sampling import GREEDY, Sampling
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request
from core.engine.serve.server import EngineServer
from core.errors import BadInput


@torch.inference_mode()
def generate(
    engine: TextEngine,
    prompt_ids: Tensor,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop_ids: tuple[int, ...] = (),
    proposer: Proposer | None = None,
) -> Tensor:
    """Extend prompt_ids int64 [B, T] in one batch; returns the new ids [B, at most max_new_tokens].

    With `stop_ids`, the engine's `special_ids.stops`, a row that has produced one is filled up with
    `special_ids.filler`, and all ends with the last row, as in transformers' generate. Without them
    text goes on through every end. The rows draw from one random stream.
    """
    if prompt_ids.ndim != 2 or 0 in prompt_ids.shape:
        raise BadInput(f"the prompt must be ids [B, T] with T >= 1, not {list(prompt_ids.shape)}.")
    generator = None if sampling.greedy else sampling.generator(engine.device)
    server = EngineServer(engine, Static(len(prompt_ids)), proposer)
    sequences = [
        server.submit(Request(prompt, max_new_tokens, sampling, stop_ids, generator))
        for prompt in prompt_ids
    ]
    while server.phase:
        server.step()
    width = max(len(sequence.new) for sequence in sequences)
    filler = engine.special_ids.filler if stop_ids else 0
    return torch.tensor(
        [sequence.new + [filler] * (width - len(sequence.new)) for sequence in sequences]
    )
