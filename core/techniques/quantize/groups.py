"""Cutting a weight into groups along its input, for techniques that choose their own codes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def checked(weight: Tensor) -> Tensor:
    """The weight; ValueError when a value is NaN or infinite."""
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("weight has NaN or infinite values; it cannot be quantized.")
    return weight


def grouped(weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """([n, groups, size] of weight [n, k], [1, groups, size] that is 1 where a column is real and 0
    where the last group was filled with zeros).
    """
    n, k = weight.shape
    filled = pad(checked(weight), (0, -k % size)).view(n, -1, size)
    real = pad(weight.new_ones(1, k), (0, -k % size)).view(1, -1, size)
    return filled, real


def ungrouped(groups: Tensor, k: int) -> Tensor:
    """The reverse of grouped: [n, k]."""
    return groups.reshape(len(groups), -1)[:, :k].contiguous()
