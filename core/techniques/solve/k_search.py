"""Rounding to ggml's k-quants (core.files.gguf.k_types): the search for each group's scale and
minimum.

Deviations from ggml: Q3_K is searched as Q6_K is, not by coordinate descent; no importance matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.files.gguf.k_blocks import KBlocks, to_half
from core.files.gguf.k_types import K_TYPES, SUPER, KType
from core.techniques.solve.groups import checked

# What is below it fp16 holds with an error above 2^-8.
SMALLEST = 2.0**-17
# Numbers worked on at a time: the search holds about ten copies of them.
CHUNK = 1 << 21


@dataclass(frozen=True)
class Search:
    """`steps` + 1 scales are tried, moved by `first` + 0.1 step codes; by `absolute` or squared
    errors.
    """

    steps: int
    first: float
    absolute: bool = False


# Of the types with minimums.
SEARCHES = {
    "q2_k": Search(15, -0.5, absolute=True),
    "q4_k": Search(20, -1.0),
    "q5_k": Search(15, -0.5),
}


def k_blocks(weight: Tensor, name: str) -> KBlocks:
    """Round weight fp32 [n, k] to the type `name`; ValueError unless it is finite and its rows are
    whole super-blocks.
    """
    kind, k = K_TYPES[name], weight.shape[1]
    if k % SUPER:
        raise ValueError(f"rows of {k} weights are no whole super-blocks of {SUPER}.")
    rows = max(1, CHUNK // k)
    parts = [_round(part, kind) for part in checked(weight).split(rows)]

    def join(field: str) -> Tensor | None:
        tensors = [getattr(part, field) for part in parts]
        return None if tensors[0] is None else torch.cat(tensors)

    codes, scale, d = join("codes"), join("scale"), join("d")
    assert codes is not None
    assert scale is not None
    assert d is not None
    low = join("d_min")
    peak = max(float(factor.abs().max()) for factor in (d, low) if factor is not None)
    if peak < SMALLEST and bool(weight.any()):
        raise ValueError(
            "its values are too small for the fp16 scales of k-quants; rtn, weight-int8 and"
            " weight-int4 keep such scales in fp32"
        )
    return KBlocks(kind, codes, scale, join("minimum"), d, low)


def _round(weight: Tensor, kind: KType) -> KBlocks:
    n, k = weight.shape
    x = weight.view(n, -1, kind.group)
    most = 2**kind.bits - 1
    m: Tensor | None = None
    d_min: Tensor | None = None
    if kind.minimum:
        scale, low = _search_affine(x, SEARCHES[kind.name], most)
        s, d = _codes_of(scale, kind)
        m, d_min = _codes_of(low, kind)
    else:
        s, d = _signed_codes_of(_search_centred(x, kind), kind)
    empty = torch.zeros(n, 0, dtype=torch.uint8)
    blocks = KBlocks(kind, empty, s, m, d, d_min)
    step, taken = blocks.steps()
    middle = 0 if kind.minimum else 2 ** (kind.bits - 1)
    moved = x if taken is None else x + taken[..., None]
    # A step of 0 gives every code the same value.
    divisor = torch.where(step == 0, torch.full_like(step, torch.inf), step)[..., None]
    codes = (moved / divisor + middle).round_().clamp_(0, most)
    return replace(blocks, codes=codes.view(n, k).to(torch.uint8))


def _search_affine(x: Tensor, search: Search, most: int) -> tuple[Tensor, Tensor]:
    """(scale, -minimum) [n, groups], each >= 0, of the smallest weighted error over candidate
    codes; for given codes both are least squares.
    """
    mean = 0.0 if search.absolute else x.square().mean(2, keepdim=True).sqrt()
    weight = mean + x.abs()
    low, high = x.amin(2).clamp(max=0), x.amax(2)
    width = high - low
    safe = torch.where(width > 0, width, torch.ones_like(width))
    sum_w, sum_x = weight.sum(2), (weight * x).sum(2)
    base = low[..., None]
    best_scale = width / most
    best_low = low
    codes = _clipped((x - base) * (most / safe)[..., None], most)
    best = _error(x, weight, best_scale, best_low, codes, search.absolute)
    for step in range(search.steps + 1):
        codes = _clipped((x - base) * ((search.first + 0.1 * step + most) / safe)[..., None], most)
        weighted = weight * codes
        sum_l, sum_ll, sum_xl = weighted.sum(2), (weighted * codes).sum(2), (weighted * x).sum(2)
        determinant = sum_w * sum_ll - sum_l * sum_l
        usable = determinant > 0
        divisor = torch.where(usable, determinant, torch.ones_like(determinant))
        scale = (sum_w * sum_xl - sum_x * sum_l) / divisor
        here = (sum_ll * sum_x - sum_l * sum_xl) / divisor
        # A minimum above zero cannot be kept: then the line goes through zero.
        above = here > 0
        through = sum_xl / torch.where(sum_ll > 0, sum_ll, torch.ones_like(sum_ll))
        scale, here = torch.where(above, through, scale), here.clamp(max=0)
        error = _error(x, weight, scale, here, codes, search.absolute)
        better = usable & (error < best)
        best = torch.where(better, error, best)
        best_scale = torch.where(better, scale, best_scale)
        best_low = torch.where(better, here, best_low)
    return best_scale.clamp(min=0), -best_low


def _search_centred(x: Tensor, kind: KType) -> Tensor:
    """Scale [n, groups], of either sign, that minimizes sum x^2 (x - scale q)^2 over candidates."""
    middle = 2 ** (kind.bits - 1)
    peak = x.gather(2, x.abs().argmax(dim=2, keepdim=True))[..., 0]
    safe = torch.where(peak == 0, torch.ones_like(peak), peak)
    weight = x.square()
    best_scale = best = torch.zeros_like(peak)
    for step in [0, *range(-9, 0), *range(1, 10)]:
        inverse = -(middle + 0.1 * step) / safe
        codes = (x * inverse[..., None]).round().clamp(-middle, middle - 1)
        weighted = weight * codes
        sum_ll, sum_xl = (weighted * codes).sum(2), (weighted * x).sum(2)
        # The error falls by sum_xl^2 / sum_ll when the scale is sum_xl / sum_ll.
        divisor = torch.where(sum_ll > 0, sum_ll, torch.ones_like(sum_ll))
        gain = sum_xl.square() / divisor
        better = gain > best
        best = torch.where(better, gain, best)
        best_scale = torch.where(better, sum_xl / divisor, best_scale)
    return best_scale


def _error(
    x: Tensor, weight: Tensor, scale: Tensor, low: Tensor, codes: Tensor, absolute: bool
) -> Tensor:
    off = codes * scale[..., None] + low[..., None] - x
    return (weight * (off.abs() if absolute else off.square())).sum(2)


def _clipped(values: Tensor, most: int) -> Tensor:
    return values.round_().clamp_(0, most)


def _codes_of(values: Tensor, kind: KType) -> tuple[Tensor, Tensor]:
    """(codes >= 0 int16 [n, groups], step fp32 [n, supers] in fp16's values) of values >= 0."""
    whole, blocks = 2**kind.scale_bits - 1, _by_super(values, kind)
    peak = blocks.amax(2)
    inverse = torch.where(peak > 0, whole / peak, torch.zeros_like(peak))
    codes = (blocks * inverse[..., None]).round_().clamp_(0, whole)
    return _by_group(codes), to_half(peak / whole)


def _signed_codes_of(values: Tensor, kind: KType) -> tuple[Tensor, Tensor]:
    """As _codes_of with a sign; the value of largest magnitude gets the lowest code."""
    middle, blocks = 2 ** (kind.scale_bits - 1), _by_super(values, kind)
    peak = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))[..., 0]
    inverse = torch.where(peak != 0, -middle / peak, torch.zeros_like(peak))
    codes = (blocks * inverse[..., None]).round_().clamp_(-middle, middle - 1)
    return _by_group(codes), to_half(-peak / middle)


def _by_super(values: Tensor, kind: KType) -> Tensor:
    """[n, supers, groups of one] of [n, groups]."""
    return values.view(len(values), -1, SUPER // kind.group)


def _by_group(codes: Tensor) -> Tensor:
    return codes.view(len(codes), -1).to(torch.int16)
