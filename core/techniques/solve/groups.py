"""Cutting a weight into groups along its input, for techniques that choose their own codes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

# fp16 holds what is smaller with an error above 2^-8.
SMALLEST_SCALE = 2.0**-17


def checked(weight: Tensor) -> Tensor:
    """The weight; ValueError when a value is NaN or infinite."""
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("weight has NaN or infinite values; it cannot be quantized.")
    return weight


def check_fp16_scales(weight: Tensor, bits: int) -> None:
    """ValueError when a weight is so small that fp16 could hold no scale of `bits` bits for it."""
    most = float(checked(weight).abs().max())
    if 0 < most < SMALLEST_SCALE * 2**bits:
        raise ValueError(
            f"its largest value is {most:.2g}, too small for fp16 scales of {bits} bits; rtn,"
            " weight-int8 and weight-int4 keep such scales in fp32"
        )


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
