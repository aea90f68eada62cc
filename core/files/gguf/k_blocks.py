"""A weight in the super-blocks of ggml's k-quants, and the low-bit form that kernels take of it.

`low_bit` multiplies d s out and keeps it, and m t in units of it, in fp16, where ggml keeps the
codes: more memory (Q4_K 5 bits a weight, on disk 4.5), and within 2^-10 the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.files.gguf.k_types import BLOCK, K_TYPES, SUPER, KType
from kernels.linear_lowbit import LowBit

# Of fp16.
LARGEST = 65504.0


@dataclass(frozen=True, eq=False)
class KBlocks:
    """A weight [n, k]: codes uint8 [n, k]; scale and minimum int16 [n, groups] (minimum None for
    types without); d and d_min fp32 [n, super-blocks], each a value of fp16.
    """

    type: KType
    codes: Tensor
    scale: Tensor
    minimum: Tensor | None
    d: Tensor
    d_min: Tensor | None

    def steps(self) -> tuple[Tensor, Tensor | None]:
        """(d s, t m) of every group, fp32 [n, groups]."""
        low = None
        if self.minimum is not None and self.d_min is not None:
            low = _spread(self.d_min, self) * self.minimum
        return _spread(self.d, self) * self.scale, low

    def dequantize(self) -> Tensor:
        """The weight that is stood for, fp32 [n, k], in ggml's order of operations."""
        step, low = self.steps()
        middle = 0 if self.type.minimum else 2 ** (self.type.bits - 1)
        values = (self.codes.float() - middle).view(len(step), -1, self.type.group)
        values = values * step[..., None]
        if low is not None:
            values = values - low[..., None]
        return values.reshape(len(step), -1)

    def low_bit(self) -> LowBit:
        """The form that kernels take; the module's docstring says what is rounded."""
        exact, low = self.steps()
        scale, codes, zero = to_half(exact), self.codes, None
        if low is not None:
            # A group of one value has no step: it becomes -1 times its minimum. So does one whose
            # steps are below what fp16 tells apart at its minimum.
            flat = (scale == 0) | (low > LARGEST * scale)
            scale = torch.where(flat, to_half(low), scale)
            divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
            zero = torch.where(flat, torch.ones_like(scale), to_half(low / divisor))
            columns = flat.repeat_interleave(self.type.group, dim=1)
            codes = codes.masked_fill(columns, 0)
        return LowBit(codes, scale, zero, self.type.bits, self.type.group)


def blocks_of(form: LowBit, name: str) -> KBlocks | None:
    """The super-blocks that `KBlocks.low_bit` made the form of; None when there are none such."""
    kind = K_TYPES[name]
    n, each = form.n, SUPER // kind.group
    scale, zero = form.scale.cpu(), None if form.zero is None else form.zero.cpu()
    flat = torch.zeros_like(scale, dtype=torch.bool)
    if zero is not None:
        # low_bit's word for a group without a step: every code 0, the zero 1.
        unused = (form.codes.cpu() == 0).view(n, -1, kind.group).all(dim=2)
        flat = unused & (zero == 1)
    stepped = torch.where(flat, torch.zeros_like(scale), scale)
    most = 2 ** (kind.scale_bits - (0 if kind.minimum else 1))
    bounds = (0, most - 1) if kind.minimum else (-most, most - 1)
    scales = _codes(stepped.view(n, -1, each), bounds, lambda value, _: value)
    if scales is None:
        return None
    s, d = scales
    if zero is None:
        return KBlocks(kind, form.codes.cpu(), s.view(n, -1), None, d, None)
    whole = torch.where(flat | (scale == 0), torch.ones_like(scale), scale).view(n, -1, each)
    wanted = torch.where(flat, scale, zero).view(n, -1, each)
    lows = _codes(wanted * whole, bounds, lambda value, at: value / whole[at], wanted)
    if lows is None:
        return None
    return KBlocks(kind, form.codes.cpu(), s.view(n, -1), lows[0].view(n, -1), d, lows[1])


def _codes(
    values: Tensor, bounds: tuple[int, int], shown: Any, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """(codes int16 [n, supers, each], step fp32 [n, supers] of fp16's values): codes * step are
    `values` up to fp16's rounding of what `shown` makes of them, which is `wanted`.
    """
    wanted = values if wanted is None else wanted
    peak = values.gather(2, values.abs().argmax(dim=2, keepdim=True))
    codes = torch.zeros_like(values)
    step = torch.zeros_like(peak)
    open_ = (peak != 0).squeeze(2)
    low, high = bounds
    # The peak's code is the outermost one where the search left it there; else one further in.
    for outer in (code for size in range(max(high, -low), 0, -1) for code in (-size, size)):
        if not low <= outer <= high or not bool(open_.any()):
            continue
        at = open_.nonzero(as_tuple=True)
        first = (peak[at] / outer).half()
        bits = first.view(torch.int16)
        for move in (0, -1, 1, -2, 2):
            tried = (bits + move).view(torch.float16).float()
            whole = (values[at] / torch.where(tried == 0, torch.ones_like(tried), tried)).round()
            fits = (whole >= low) & (whole <= high) & tried.isfinite() & (tried != 0)
            fits &= shown(whole * tried, at).half().float() == wanted[at]
            good = fits.all(dim=1)
            where = tuple(side[good] for side in at)
            codes[where], step[where] = whole[good], tried[good]
            open_[where] = False
            left = ~good
            at = tuple(side[left] for side in at)
            bits = bits[left]
            if not len(bits):
                break
    if bool(open_.any()):
        return None
    return codes.to(torch.int16), step.squeeze(2)


def counting_up(codes: Tensor, scale: Tensor, low: Tensor, bits: int) -> LowBit:
    """Plain blocks w = scale q + low in the form that kernels take: codes uint8 [n, k], scale and
    low fp32 [n, k / 32]. A block without a step becomes -1 times its minimum.
    """
    flat = scale == 0
    step = torch.where(flat, -low, scale)
    divisor = torch.where(step == 0, torch.ones_like(step), step)
    zero = torch.where(flat, torch.ones_like(step), -low / divisor)
    codes = codes.masked_fill(flat.repeat_interleave(BLOCK, dim=1), 0)
    return LowBit(codes, step, zero, bits, BLOCK)


def to_half(values: Tensor) -> Tensor:
    """The values of fp16 nearest to fp32 ones; ValueError above the largest."""
    rounded = values.half().float()
    if not bool(rounded.isfinite().all()):
        raise ValueError(f"a scale is above {LARGEST:g}, which the fp16 of GGUF cannot hold.")
    return rounded


def _spread(step: Tensor, blocks: KBlocks) -> Tensor:
    """[n, groups] of [n, supers]."""
    return step.repeat_interleave(SUPER // blocks.type.group, dim=1)
