"""Owns which proposed tokens stand, so that what is emitted has exactly the target's distribution
(Leviathan, Kalman and Matias 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor


def agree(choices: list[int], drafted: list[int]) -> list[int]:
    """Greedy verification: the drafted tokens up to the first that the target would not choose, and
    the target's own choice behind them. `choices` are its n + 1 likeliest tokens.
    """
    agreed = 0
    while agreed < len(drafted) and drafted[agreed] == choices[agreed]:
        agreed += 1
    return choices[: agreed + 1]


def verify(
    wanted: Tensor, offers: Tensor, drafted: list[int], generator: torch.Generator
) -> list[int]:
    """The drafted tokens that stand, and the token that follows them.

    wanted [n + 1, V] are the target's distributions, offers [n, V] the draft's. Token i stands with
    probability min(1, p(x) / q(x)); after a refusal the next token comes from `residual`.
    """
    for i, token in enumerate(drafted):
        p, q = float(wanted[i, token]), float(offers[i, token])
        chance = torch.rand((), generator=generator, device=generator.device)
        if float(chance) * q >= p:
            rest = residual(wanted[i], offers[i])
            return [*drafted[:i], int(torch.multinomial(rest, 1, generator=generator))]
    return [*drafted, int(torch.multinomial(wanted[-1], 1, generator=generator))]


def residual(wanted: Tensor, offered: Tensor) -> Tensor:
    """normalize(max(0, p - q)), the distribution after a refusal; p itself when nothing is left."""
    left = (wanted - offered).clamp(min=0)
    total = left.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, left / total, wanted)
