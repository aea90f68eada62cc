"""Ternary weights: -1, 0 or 1, and a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from core.plan import Case
from core.techniques.base import Base, Proposal
from core.techniques.effects import Effects, few_values
from kernels.lowbit_bytes import LowBitBytes

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit

# Li and Liu 2016, section 3.1: the threshold over the mean magnitude.
TWN_THRESHOLD = 0.7


@dataclass(frozen=True)
class Ternary(Base):
    """w = a q with q in -1, 0, 1.

    `rule` "twn": q = sign(w) where |w| > 0.7 mean|w|, a = mean|w| of those (Ternary Weight
    Networks, Li and Liu 2016, equations 5 and 6), for every group of `group_size` inputs (0: a
    row). "absmean": a = mean|w| of the whole matrix, q = round(w / a) cut to -1 .. 1 (BitNet
    b1.58, Ma et al. 2024, equations 1 to 3); no groups. The head keeps `head_bits` bits (0: it is
    ternary too). Without training a language model loses much of what it knows; see qat.
    """

    group_size: int = 64
    rule: str = "twn"
    head_bits: int = 8

    name: ClassVar[str] = "ternary"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Ternary weights, group scales"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "group_size": (0, 32, 64, 128),
        "rule": ("twn", "absmean"),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {"head_bits": (0, 8)}

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Both rules."""
        return (Proposal(cls()), Proposal(cls(rule="absmean")))

    @property
    def group(self) -> int:
        """Inputs that share a scale within a row; 0 for all of them."""
        return self.group_size if self.rule == "twn" else 0

    def effect(self, before: Effects, case: Case) -> Effects:
        """Two bits a weight and a 16-bit scale per group; the head in `head_bits` bits."""
        return few_values(before, LowBitBytes(2, self.group, self.name), self.head_bits)

    def apply(self, deployment: Any) -> None:
        """Replace every matrix by packed codes."""
        from core.techniques.solve.matrices import replace_each_but_head

        replace_each_but_head(deployment, self.form, self.head_bits)

    def form(self, weight: Tensor) -> LowBit:
        """The weight [n, k] in three values."""
        import torch

        from core.techniques.solve.groups import check_fp16_scales, checked, grouped, ungrouped
        from kernels.linear_lowbit import LowBit
        from kernels.linear_lowbit.codes import round_scale

        check_fp16_scales(weight, 0)
        n, k = weight.shape
        size = self.group or k
        if self.rule == "absmean":
            scale, _ = round_scale(checked(weight).abs().mean().expand(n, 1), "fp16")
            divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
            signs = (weight / divisor).round().clamp(-1, 1)
        else:
            groups, real = grouped(weight, size)
            magnitude = groups.abs()
            threshold = TWN_THRESHOLD * magnitude.sum(2) / real.sum(2)
            mask = magnitude > threshold[..., None]
            raw = (magnitude * mask).sum(2) / mask.sum(2).clamp(min=1)
            scale, _ = round_scale(raw, "fp16")
            signs = ungrouped(groups.sign() * mask, k)
        codes = (signs + 1).to(torch.uint8).contiguous()
        return LowBit(codes, scale.contiguous(), None, 2, size, "ternary")
