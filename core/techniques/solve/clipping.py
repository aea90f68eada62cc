"""Owns the scales of groups: which range each group of a matrix keeps, searched instead of taken
from its extremes.

Rounding with the scales is the caller's; so is what a matrix was given.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.linear_lowbit.codes import grouped, nearest, round_scale, scales_of

# Shares of a group's range that are tried: from 1 down to nearly this, as AWQ's implementation.
LEAST, STEPS = 0.5, 12
# fp32 values that one step of the search works on: half a megabyte stays in a core's cache; what a
# GPU is started for takes a quarter of a gigabyte.
AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 26}


def fill_dead(squares: Tensor) -> Tensor:
    """In place: columns that were never given anything count as the mean of the others (1 where
    there are none), in squares [k] of inputs; which they are, bool [k].

    They may be given something later: their weights are to be rounded as well as any.
    """
    dead = squares <= 0
    if bool(dead.any()):
        squares[dead] = 1.0 if bool(dead.all()) else squares[~dead].double().mean().to(squares)
    return dead


def group_blocks(hessian: Tensor, group_size: int) -> Tensor:
    """The blocks of hessian [k, k] on the diagonal, one a group: fp32 [groups, size, size].

    The last one is filled with zeros where k is no multiple of the group.
    """
    k = hessian.shape[0]
    size = min(group_size, k)
    blocks = hessian.new_zeros(-(-k // size), size, size)
    for index, begin in enumerate(range(0, k, size)):
        end = min(k, begin + size)
        blocks[index, : end - begin, : end - begin] = hessian[begin:end, begin:end]
    return blocks


def search_scales(
    weight: Tensor,
    bits: int,
    group_size: int,
    symmetric: bool,
    blocks: Tensor | None = None,
    steps: int = STEPS,
) -> tuple[Tensor, Tensor | None]:
    """(scale already rounded to fp16, zero) fp32 [n, groups] of weight [n, k], integers.

    Each group takes, of `steps` shares of its range and of both signs where symmetric, the one
    whose rounding d loses least: d^T H_g d with H_g of `blocks` [groups, size, size] (what the
    group adds to the output's squared error; Lin et al. 2023, section 3.2 and its implementation)
    or their diagonals [groups, size], or |d|^2 without. The whole range is tried first, so no group
    is worse than by round-to-nearest. Raises ValueError for weights that cannot be quantized.
    """
    groups = grouped(weight, group_size)
    rows = max(1, AT_ONCE[weight.device.type] // groups[0].numel())
    parts = [_search(part, bits, symmetric, blocks, steps) for part in groups.split(rows)]
    scale = torch.cat([scales for scales, _ in parts])
    if symmetric:
        return scale, None
    return scale, torch.cat([zero for _, zero in parts if zero is not None])


def _search(
    groups: Tensor, bits: int, symmetric: bool, blocks: Tensor | None, steps: int
) -> tuple[Tensor, Tensor | None]:
    best: tuple[Tensor, Tensor, Tensor | None] | None = None
    for scale, zero in _candidates(groups, bits, symmetric, steps):
        lost = rounding_loss(groups, scale, zero, bits, blocks)
        if best is None:
            best = lost, scale, zero
            continue
        better = lost < best[0]
        chosen = None if zero is None or best[2] is None else torch.where(better, zero, best[2])
        best = torch.where(better, lost, best[0]), torch.where(better, scale, best[1]), chosen
    assert best is not None
    return best[1], best[2]


def _candidates(
    groups: Tensor, bits: int, symmetric: bool, steps: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    whole, zero = scales_of(groups, bits, "int", symmetric)
    for step in range(steps):
        scale, _ = round_scale(whole * (1 - (1 - LEAST) * step / steps), "fp16")
        if zero is None:
            yield scale, None
            yield -scale, None
        else:
            # Narrowing a range by a share leaves its zero; a neighbour narrows one end alone.
            for shift in (0, -1, 1):
                yield scale, (zero + shift).clamp(0, 2**bits - 1)


def rounding_loss(
    groups: Tensor, scale: Tensor, zero: Tensor | None, bits: int, blocks: Tensor | None = None
) -> Tensor:
    """fp32 [n, groups]: d^T H_g d of rounding fp32 [n, groups, size], as in search_scales."""
    codes = nearest(groups, scale, zero, bits, "int").float()
    centre = 2 ** (bits - 1) if zero is None else zero[..., None]
    lost = (codes - centre).mul_(scale[..., None]).sub_(groups)
    if blocks is None:
        return lost.square_().sum(dim=2)
    if blocks.dim() == 2:
        return lost.square_().mul_(blocks).sum(dim=2)
    seen = torch.bmm(lost.transpose(0, 1), blocks).transpose(0, 1)
    return (seen * lost).sum(dim=2)


def spread(values: Tensor, group_size: int, k: int) -> Tensor:
    """values [n, groups] repeated for every column: [n, k]."""
    return values.repeat_interleave(min(group_size, k), dim=1)[:, :k]


def step_products(codes: Tensor, zeros: Tensor, group_size: int) -> Tensor:
    """code - zero of uint8 [n, k] as fp32 [n, groups, size], columns behind the last one zero."""
    n, k = codes.shape
    size = min(group_size, k)
    steps = codes.float() - spread(zeros, group_size, k)
    return pad(steps, (0, -k % size)).view(n, -1, size)
