"""Owns the plain generation loop and the clock that takes its timestamps. It judges no numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from core.engine.protocol import TextEngine
from core.engine.serve.sampling import GREEDY, Sampling, draw
from core.errors import BadInput


class GenerationClock:
    """Time stamps of one generation, in seconds of time.perf_counter.

    A token counts as there when its id is known to the host.
    """

    def __init__(self) -> None:
        self.started = 0.0
        self.stamps: list[float] = []

    def start(self) -> None:
        """The request arrives."""
        self.stamps.clear()
        self.started = time.perf_counter()

    def tick(self, tokens: int = 1) -> None:
        """`tokens` new tokens per row are there."""
        now = time.perf_counter()
        if tokens == 1:
            self.stamps.append(now)
        else:
            self.stamps += [now] * tokens

    @property
    def ttft_s(self) -> float:
        """Seconds from the request to the first token."""
        return self.stamps[0] - self.started

    @property
    def token_seconds(self) -> list[float]:
        """Seconds between each token and the one before it; 0 within a burst of speculation."""
        return [b - a for a, b in zip(self.stamps[:-1], self.stamps[1:], strict=True)]

    @property
    def tpot_s(self) -> float:
        """Mean seconds per token after the first; needs two tokens."""
        return (self.stamps[-1] - self.stamps[0]) / (len(self.stamps) - 1)

    @property
    def total_s(self) -> float:
        """Seconds from the request to the last token."""
        return self.stamps[-1] - self.started


def check_request(engine: TextEngine, prompt_ids: Tensor, max_new_tokens: int) -> None:
    """Raise BadInput unless the prompt and the new tokens suit the engine."""
    if prompt_ids.ndim != 2 or 0 in prompt_ids.shape:
        raise BadInput(f"the prompt must be ids [B, T] with T >= 1, not {list(prompt_ids.shape)}.")
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens must be 1 or more, not {max_new_tokens}.")
    if prompt_ids.shape[1] + max_new_tokens > engine.max_positions:
        raise BadInput(
            f"{prompt_ids.shape[1]} prompt and {max_new_tokens} new tokens exceed the model's "
            f"{engine.max_positions} positions; use a shorter prompt or fewer tokens."
        )


@torch.inference_mode()
def generate(
    engine: TextEngine,
    prompt_ids: Tensor,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    on_token: Callable[[Tensor], object] | None = None,
    clock: GenerationClock | None = None,
    stop_ids: tuple[int, ...] = (),
) -> Tensor:
    """Extend prompt_ids int64 [B, T]; returns the new ids [B, max_new_tokens].

    `on_token` gets the ids [B] of each step. With `stop_ids`, the engine's `special_ids.stops`, a
    row that has produced one is filled up with `special_ids.filler`, and all ends with the last
    row, as in transformers' generate. Without them text goes on through every end: a benchmark
    asks for a number of tokens.
    """
    check_request(engine, prompt_ids, max_new_tokens)
    if clock is not None:
        clock.start()
    batch, length = prompt_ids.shape
    generator = None if sampling.greedy else sampling.generator(engine.device)
    cache = engine.new_cache(batch, length + max_new_tokens)
    done = torch.zeros(batch, dtype=torch.bool)
    stops = torch.tensor(stop_ids, dtype=torch.int64)
    ids, new = prompt_ids, []
    for _ in range(max_new_tokens):
        logits = engine.forward(ids, cache, last_only=True)
        token = draw(logits[:, -1], sampling, generator).cpu()
        if bool(done.any()):
            token = torch.where(done, engine.special_ids.filler, token)
        if clock is not None:
            clock.tick()
        new.append(token)
        if on_token is not None:
            on_token(token)
        if stop_ids:
            done |= torch.isin(token, stops)
            if bool(done.all()):
                break
        ids = token[:, None]
    return torch.stack(new, dim=1)
