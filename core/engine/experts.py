"""Owns the experts of a mixture as linear layers of their own, so that techniques find them.

transformers 5 keeps all experts of a layer in two 3-D parameters, which no technique for matrices
sees. Here each expert has two linear layers over the same memory; what is computed stays the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Of these modules: gate_up_proj [E, 2 m, h], down_proj [E, h, m], act_fn, and no biases.
FUSED = {
    ("transformers.models.mixtral.modeling_mixtral", "MixtralExperts"),
    ("transformers.models.qwen2_moe.modeling_qwen2_moe", "Qwen2MoeExperts"),
    ("transformers.models.qwen3_moe.modeling_qwen3_moe", "Qwen3MoeExperts"),
}


class Experts(nn.ModuleList):
    """Gated MLPs, of which each token goes through those that the router chose for it."""

    def __init__(self, fused: Any) -> None:
        wide, narrow = fused.gate_up_proj.detach(), fused.down_proj.detach()
        super().__init__(Expert(up, down) for up, down in zip(wide, narrow, strict=True))
        self.activation = fused.act_fn

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """hidden [T, h]; chosen int64 [T, used] and weights [T, used] of each token's experts."""
        out = torch.zeros_like(hidden)
        for index in chosen.unique().tolist():
            if index >= len(self):
                continue
            token, place = torch.where(chosen == index)
            weighted = self[index](hidden[token], self.activation) * weights[token, place, None]
            out.index_add_(0, token, weighted.to(out.dtype))
        return out


class Expert(nn.Module):
    """One of them, over memory of the caller: up [2 m, h], down [h, m]."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = _linear(up), _linear(down)

    def forward(self, x: Tensor, activation: Any) -> Tensor:
        """down(activation(gate x) * (up x)), [T, h]."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        result: Tensor = self.down_proj(activation(gate) * up)
        return result


def split_experts(model: nn.Module) -> None:
    """Put `Experts` in the place of every fused module of experts under `model`."""
    fused = [
        name
        for name, part in model.named_modules()
        if (type(part).__module__, type(part).__name__) in FUSED
    ]
    for name in fused:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, Experts(model.get_submodule(name)))


def _linear(weight: Tensor) -> nn.Linear:
    rows, columns = weight.shape
    with torch.device("meta"):
        linear = nn.Linear(columns, rows, bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
