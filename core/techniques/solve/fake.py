"""Quantization that gradients pass through: what a matrix trains under before it is rounded.

Owns the straight-through rounding, the learned scales and where they start. The rounding is that of
kernels.linear_lowbit.codes, operation by operation, so that the codes that training saw are the
codes that are packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from core.techniques.solve.clipping import search_scales
from core.techniques.solve.groups import check_fp16_scales
from kernels.linear_lowbit import LowBit
from kernels.linear_lowbit.codes import grouped, nearest, round_scale

# How far from its code, in steps, a weight starts at most. On pycode-small, 2 bit, 60 steps: at
# 0.49 the first updates undo what GPTQ chose, at 0.25 too little of it moves.
EDGE = 0.45


class _Rounded(torch.autograd.Function):
    """scale * (clamp(round(w / scale) + zero) - zero), with gradients for w and scale.

    Straight-through estimator (Bengio et al. 2013) for w: 1 inside the range, 0 where clamped. For
    the scale LSQ's equation 3 (Esser et al. 2020): round(w / s) - w / s inside, the bound outside.
    LSQ's factor on the scale's gradient is left out: Adam's step does not depend on it.
    """

    @staticmethod
    def forward(ctx: Any, groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
        """groups fp32 [n, g, size], scale and zero fp32 [n, g] -> fp32 [n, g, size]."""
        stored = scale.half().float()
        divisor = torch.where(stored != 0, stored, torch.ones_like(stored))[..., None]
        steps = (groups / divisor).add_(zero[..., None])
        ctx.save_for_backward(steps, stored, zero)
        ctx.bits = bits
        codes = steps.round().clamp_(0, 2**bits - 1)
        return codes.sub_(zero[..., None]).mul_(stored[..., None])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Gradients of groups and scale; none of a group whose scale is zero."""
        (gradient,) = gradients
        steps, scale, zero = ctx.saved_tensors
        most = 2**ctx.bits - 1
        inside = (steps > 0) & (steps < most)
        inside &= (scale != 0)[..., None]
        slope = steps.round().clamp_(0, most)
        slope -= torch.where(inside, steps, zero[..., None])
        of_scale = slope.mul_(gradient).sum(-1).mul_(scale != 0)
        return gradient * inside, of_scale, None, None


def fake_quantize(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """See _Rounded: groups fp32 [n, g, size] rounded to nearest, scale and zero fp32 [n, g]."""
    rounded: Tensor = _Rounded.apply(groups, scale, zero, bits)  # type: ignore[no-untyped-call]
    return rounded


class FakeQuantized(nn.Module):
    """A matrix [n, k] in fp32 that is rounded to integers in groups whenever it is used.

    `weight` and `scale` are parameters, the zeros are whole numbers and stay. It starts at the
    codes and scales of `form`: each weight where it is, or as far as EDGE from its code, so that
    one that was rounded elsewhere than to its nearest code can go back.
    """

    def __init__(self, weight: Tensor, form: LowBit) -> None:
        super().__init__()
        self.bits, self.group_size = form.bits, form.group_size
        self.symmetric = form.zero is None
        self.register_buffer("zero", form.zeros(), persistent=False)
        self.scale = nn.Parameter(form.scale.clone())
        zero = self.get_buffer("zero")[..., None]
        divisor = torch.where(form.scale != 0, form.scale, torch.ones_like(form.scale))[..., None]
        codes = self._groups(form.codes.float())
        steps = (self._groups(weight.detach().float()) / divisor).add_(zero)
        # What lies beyond the last code is at home there, however far.
        low = torch.where(codes == 0, -torch.inf, codes - EDGE)
        high = torch.where(codes == 2**form.bits - 1, torch.inf, codes + EDGE)
        steps = steps.clamp_(low, high).sub_(zero).mul_(divisor)
        self.weight = nn.Parameter(steps.view(form.n, -1)[:, : form.k].contiguous())

    def forward(self) -> Tensor:
        """The rounded matrix, fp32 [n, k]; equals `form().dequantize()` bit by bit."""
        n, k = self.weight.shape
        groups = self._groups(self.weight)
        rounded = fake_quantize(groups, self.scale, self.get_buffer("zero"), self.bits)
        return rounded.view(n, -1)[:, :k]

    @torch.no_grad()
    def form(self) -> LowBit:
        """What is packed, with the codes and scales that `forward` uses."""
        n, k = self.weight.shape
        scale, _ = round_scale(self.scale.detach(), "fp16")
        zero = self.get_buffer("zero")
        codes = nearest(self._groups(self.weight), scale, zero, self.bits, "int")
        codes = codes.view(n, -1)[:, :k].contiguous()
        zeros = None if self.symmetric else zero
        return LowBit(codes, scale, zeros, self.bits, self.group_size)

    def _groups(self, weight: Tensor) -> Tensor:
        n, k = weight.shape
        size = min(self.group_size, k)
        return pad(weight, (0, -k % size)).view(n, -1, size)


class FakeLinear(nn.Module):
    """A FakeQuantized matrix in the place of a torch.nn.Linear."""

    def __init__(self, rounded: FakeQuantized, bias: Tensor | None) -> None:
        super().__init__()
        self.rounded = rounded
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """y [..., n] of x [..., k]."""
        return linear(x, self.rounded(), self.bias)


def stack(forms: Sequence[LowBit]) -> LowBit:
    """Forms of one format and k on top of each other."""
    zeros = [form.zero for form in forms if form.zero is not None]
    return replace(
        forms[0],
        codes=torch.cat([form.codes for form in forms]),
        scale=torch.cat([form.scale for form in forms]),
        zero=torch.cat(zeros) if zeros else None,
    )


def nearest_form(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> LowBit:
    """Weight [n, k] rounded to nearest under the scales that lose least in the square.

    Raises ValueError for a weight that is not finite, or too small or large for fp16 scales.
    """
    check_fp16_scales(weight, bits)
    scale, zero = search_scales(weight, bits, group_size, symmetric)
    codes = nearest(grouped(weight, group_size), scale, zero, bits, "int")
    codes = codes.view(weight.shape[0], -1)[:, : weight.shape[1]].contiguous()
    return LowBit(codes, scale, zero, bits, group_size)
