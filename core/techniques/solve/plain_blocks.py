"""GGML's plain blocks of 32 weights, each with a scale of its own: what k-quants fall back to where
a row is no multiple of their 256.

    Q4_0  w = d (q - 8)     q 0..15, the value of largest magnitude at q = 0
    Q5_0  w = d (q - 16)    q 0..31, likewise
    Q5_1  w = d q + m       q 0..31, from the smallest value to the largest
    Q8_0  w = d q           q -127..127

with d and m in fp16. Rounded as ggml's quantize_row_*_ref does (ggml-quants.c).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.files.gguf.k_blocks import counting_up, to_half
from core.files.gguf.k_types import BLOCK
from core.techniques.solve.groups import check_fp16_scales
from kernels.linear_lowbit import LowBit


@dataclass(frozen=True)
class PlainType:
    """`bits` a code; with `minimum` codes count up from it, else from the middle."""

    bits: int
    minimum: bool = False


TYPES = {
    "q4_0": PlainType(4),
    "q5_0": PlainType(5),
    "q5_1": PlainType(5, minimum=True),
    "q8_0": PlainType(8),
}


def plain_blocks(weight: Tensor, name: str) -> LowBit:
    """Round weight fp32 [n, k] to the type `name`; its values are ggml's, bit for bit up to the
    order of operations. ValueError for NaN, infinity, rows that are no whole blocks, and scales
    that fp16 does not hold.
    """
    kind, (n, k) = TYPES[name], weight.shape
    if k % BLOCK:
        raise ValueError(f"rows of {k} weights are no whole blocks of {BLOCK}.")
    check_fp16_scales(weight, kind.bits)
    blocks = weight.view(n, -1, BLOCK)
    most = 2**kind.bits - 1
    if kind.minimum:
        return _affine(blocks, kind.bits, most)
    if kind.bits == 8:
        exact = blocks.abs().amax(2) / 127
        steps = blocks * _inverse(exact)[..., None]
        # Halves go away from zero.
        steps = steps.sign() * (steps.abs() + 0.5).floor() + 128
    else:
        middle = 2 ** (kind.bits - 1)
        exact = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))[..., 0] / -middle
        steps = (blocks * _inverse(exact)[..., None] + (middle + 0.5)).trunc()
    codes = steps.clamp(0, most).to(torch.uint8).view(n, k)
    return LowBit(codes, to_half(exact), None, kind.bits, BLOCK)


def _affine(blocks: Tensor, bits: int, most: int) -> LowBit:
    n = len(blocks)
    low, high = blocks.amin(2), blocks.amax(2)
    exact = (high - low) / most
    codes = ((blocks - low[..., None]) * _inverse(exact)[..., None] + 0.5).trunc().clamp(0, most)
    codes = codes.to(torch.uint8).view(n, -1)
    return counting_up(codes, to_half(exact), to_half(low), bits)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
