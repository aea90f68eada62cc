"""Owns turning logits into a next token: the settings, the distribution, the draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import BadInput


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen; temperature 0 takes the likeliest and ignores the rest.

    `top_k` 0 and `top_p` 1 cut nothing. They apply after the temperature, top_k first; both keep
    the likeliest token.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise BadInput(f"temperature must be from 0 to 100, not {self.temperature}.")
        if self.top_k < 0:
            raise BadInput(f"top_k must be 0 (off) or more, not {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p must be above 0 and at most 1, not {self.top_p}.")

    @property
    def greedy(self) -> bool:
        """True when the likeliest token is always taken."""
        return self.temperature == 0

    def generator(self, device: str = "cpu") -> torch.Generator:
        """A fresh random stream from `seed`."""
        return torch.Generator(device).manual_seed(self.seed)


GREEDY = Sampling()


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution [..., V], float32, that a token is drawn from; one-hot when greedy."""
    logits = logits.float()
    if sampling.greedy:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        weakest = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < weakest, float("-inf"))
    shares = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, places = shares.sort(dim=-1, descending=True)
        # A token stays while the likelier ones before it have not reached top_p.
        nucleus = ordered.masked_fill(ordered.cumsum(-1) - ordered >= sampling.top_p, 0.0)
        shares = torch.zeros_like(shares).scatter_(-1, places, nucleus)
        shares = shares / shares.sum(dim=-1, keepdim=True)
    return shares


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """One token id int64 [B] for logits [B, V]."""
    if sampling.greedy:
        return logits.argmax(dim=-1)
    shares = probabilities(logits, sampling)
    return torch.multinomial(shares, 1, generator=generator).squeeze(-1)


def pick(shares: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """One token id of a distribution [V]."""
    if sampling.greedy:
        return int(shares.argmax())
    return int(torch.multinomial(shares, 1, generator=generator))
