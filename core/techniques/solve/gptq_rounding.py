"""Owns GPTQ on one matrix: codes whose rounding errors make up for each other under a Hessian.

GPTQ: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers". It knows matrices, not models; where inputs come from is calibration.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from core.techniques.solve.clipping import fill_dead, search_scales, step_products
from core.techniques.solve.groups import check_fp16_scales
from core.techniques.solve.hessian import Factor, best_float, factor
from core.techniques.solve.inputs import Inputs
from kernels.linear_lowbit.codes import LowBit, quantize, round_scale

# Columns that are rounded before the rest is updated with one product (section 3, step 2).
BLOCK = 128
# fp32 values of the weight that are worked on at once: 8 MB. A GPU takes 2 GB: it is started for
# every column of each part, so that small parts would be all waiting.
AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 29}


@dataclass(frozen=True)
class Grid:
    """Integers of `bits` in groups of `group_size` columns (0: one group a row)."""

    bits: int
    group_size: int
    symmetric: bool

    def size(self, k: int) -> int:
        """Columns that share a scale in a matrix of `k` columns."""
        return min(self.group_size or k, k)

    def nearest(self, weight: Tensor) -> LowBit:
        """Weight [n, k] rounded to nearest."""
        size = self.size(weight.shape[1])
        return quantize(weight, self.bits, size, "int", self.symmetric, "fp16")


@dataclass(frozen=True)
class Effort:
    """How GPTQ is done; see Gptq, whose settings these are."""

    damping: float = 0.01
    act_order: bool = True
    clip: bool = True
    refits: int = 1


def gptq(
    weight: Tensor,
    hessian: Tensor,
    grid: Grid,
    factored: Factor | None = None,
    refits: int = 0,
    clip: bool = False,
    shift: Tensor | None = None,
) -> LowBit:
    """Codes of weight fp32 [n, k] chosen column by column, each rounding error spread over the
    columns that are still to come (algorithm 1).

    The groups' scales are set before ("static groups"), so that columns may be taken in any order
    and the codes still lie as the kernel reads them. `clip` searches them (clipping.py); `refits`
    times they are then set anew, to the best for the codes under the Hessian, and the codes chosen
    again. Of all these and round-to-nearest each row keeps the one with the least loss
    tr(D H D^T), so that no row is worse than by round-to-nearest. With `shift` all this is done to
    `best_float` of the weight instead. Raises ValueError for what is not finite.
    """
    check_fp16_scales(weight, grid.bits)
    factored = factored or factor(hessian)
    k = weight.shape[1]
    rows = max(1, AT_ONCE[weight.device.type] // k)
    # Made before: small results that stay between large ones that go would leave gaps in the heap.
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    scale = weight.new_empty(len(weight), -(-k // grid.size(k)))
    zero = None if grid.symmetric else torch.empty_like(scale)
    for begin in range(0, len(weight), rows):
        part = weight[begin : begin + rows]
        aim = part if shift is None else best_float(part, shift, factored)
        rounded = _of_rows(aim, hessian, grid, factored, refits, clip)
        codes[begin : begin + rows] = rounded.codes
        scale[begin : begin + rows] = rounded.scale
        if zero is not None:
            zero[begin : begin + rows] = rounded.zeros()
    return LowBit(codes, scale, zero, grid.bits, grid.size(k))


def loss(weight: Tensor, form: LowBit, hessian: Tensor) -> Tensor:
    """fp32 [n]: d H d^T of each row, half the squared error of its outputs per calibration row."""
    lost = form.dequantize().sub_(weight)
    return (lost @ hessian).mul_(lost).sum(dim=1)


def _of_rows(
    weight: Tensor, hessian: Tensor, grid: Grid, factored: Factor, refits: int, clip: bool
) -> LowBit:
    k = weight.shape[1]
    size = grid.size(k)
    best = grid.nearest(weight)
    least = loss(weight, best, hessian)
    form, scale, zero = best, best.scale, best.zero
    if clip:
        squares = pad(hessian.diagonal(), (0, -k % size)).view(best.groups, size)
        scale, zero = search_scales(weight, grid.bits, size, grid.symmetric, squares)
    for attempt in range(1 + refits):
        if attempt:
            scale = refit_scales(weight, form, hessian, factored.damping)
        codes = round_in_order(weight, scale, zero, grid.bits, size, factored)
        form = LowBit(codes, scale, zero, grid.bits, size)
        lost = loss(weight, form, hessian)
        best, least = _better(best, least, form, lost)
    return best


def _better(one: LowBit, lost: Tensor, other: LowBit, other_lost: Tensor) -> tuple[LowBit, Tensor]:
    """Row by row the form with the smaller loss, and that loss."""
    take = other_lost < lost
    zero = one.zero
    if zero is not None and other.zero is not None:
        zero = torch.where(take[:, None], other.zero, zero)
    form = LowBit(
        torch.where(take[:, None], other.codes, one.codes),
        torch.where(take[:, None], other.scale, one.scale),
        zero,
        one.bits,
        one.group_size,
    )
    return form, torch.where(take, other_lost, lost)


def round_in_order(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bits: int,
    group_size: int,
    factored: Factor,
) -> Tensor:
    """Codes uint8 [n, k] of weight fp32 [n, k] under fixed scales fp32 [n, groups] (algorithm 1).

    Each column's error, over the diagonal of U, is taken off the columns still to come.
    """
    order, upper = factored.order, factored.upper
    k = weight.shape[1]
    # Columns become rows: each lies together in memory.
    left = weight.T[order].contiguous()
    divisor = torch.where(scale != 0, scale, torch.ones_like(scale)).T.contiguous()
    scale = scale.T.contiguous()
    centre = torch.full_like(scale, 2 ** (bits - 1)) if zero is None else zero.T.contiguous()
    group = (order // group_size).tolist()
    position = order.tolist()
    codes = torch.empty(k, weight.shape[0], dtype=torch.uint8, device=weight.device)
    diagonal = upper.diagonal().tolist()
    for begin in range(0, k, BLOCK):
        end = min(k, begin + BLOCK)
        errors = torch.empty_like(left[begin:end])
        for column in range(begin, end):
            g = group[column]
            code = (left[column] / divisor[g]).add_(centre[g]).round_().clamp_(0, 2**bits - 1)
            codes[position[column]] = code.to(torch.uint8)
            error = errors[column - begin]
            torch.sub(left[column], code.sub_(centre[g]).mul_(scale[g]), out=error)
            error.div_(diagonal[column])
            left[column + 1 : end].addr_(upper[column, column + 1 : end], error, alpha=-1)
        left[end:].addmm_(upper[begin:end, end:].T, errors, alpha=-1)
    return codes.T.contiguous()


def refit_scales(weight: Tensor, form: LowBit, hessian: Tensor, damping: float = 0.01) -> Tensor:
    """The scales, fp32 [n, groups] rounded to fp16, that are best for the codes of `form`.

    Least squares of each row under the Hessian, damped as in `factor`: with Z [k, groups] the
    steps code - zero of a row, s = (Z^T H Z)^-1 Z^T H w.
    """
    steps = step_products(form.codes, form.zeros(), form.group_size)
    n, groups, size = steps.shape
    room = groups * size - form.k
    more = damping * hessian.diagonal().mean()
    wanted = pad(weight @ hessian + more * weight, (0, room)).view(n, groups, size)
    wanted = (wanted * steps).sum(dim=2)
    matrix = torch.empty(n, groups, groups, device=weight.device)
    for g in range(groups):
        # The columns behind the last are steps of zero.
        part = hessian[g * size : (g + 1) * size]
        seen = pad(steps[:, g, : len(part)] @ part, (0, room)).view(n, groups, size)
        seen[:, g] += more * steps[:, g]
        matrix[:, g] = (seen * steps).sum(dim=2)
    # A group of zeros alone has no best scale: it keeps the one it has.
    ridge = 1e-5 * matrix.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
    ridge = ridge.clamp(min=torch.finfo(torch.float32).tiny * 1e6)
    matrix.diagonal(dim1=1, dim2=2).add_(ridge)
    wanted += ridge * form.scale
    rows = max(1, AT_ONCE[weight.device.type] // groups**2)
    solved = [
        torch.linalg.solve(*pair)
        for pair in zip(matrix.split(rows), wanted.split(rows), strict=True)
    ]
    best = torch.cat(solved)
    usable = torch.isfinite(best) & (best.abs() < 65504)
    return round_scale(torch.where(usable, best, form.scale), "fp16")[0]


def quantize_by_inputs(
    weight: Tensor,
    inputs: Inputs,
    grid: Grid,
    effort: Effort,
    scales: Tensor | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> LowBit:
    """GPTQ of weight fp32 [n, k] for its calibration inputs.

    Columns that were never given anything count as the mean, in the search for scales too. Where
    `inputs` have the unchanged model's beside them, divided by `scales` [k] when there are
    some, the outputs on those are aimed at. `note` is told when more damping was needed. Raises
    ValueError for weights or inputs that are not finite.
    """
    hessian = inputs.hessian()
    factored = factor(hessian, effort.damping, effort.act_order)
    if factored.damping != effort.damping:
        note(f"the Hessian was damped by {factored.damping:g} instead of {effort.damping:g}")
    cross, shift = inputs.cross(), None
    if cross is not None:
        shift = cross - hessian if scales is None else cross / scales[:, None] - hessian
    dead = fill_dead(hessian.diagonal())
    try:
        return gptq(weight, hessian, grid, factored, effort.refits, effort.clip, shift)
    finally:
        # The sums are those of the inputs, which may be asked again.
        hessian.diagonal()[dead] = 0.0
