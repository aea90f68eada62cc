"""SwiGLU in plain torch (Shazeer 2020)."""

import torch
from torch import Tensor


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 * size], gate first; returns [..., size] in the same dtype."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up
