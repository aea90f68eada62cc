"""Binary weights: one bit and a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from core.plan import Case
from core.techniques.base import Base
from core.techniques.effects import Effects, few_values
from kernels.lowbit_bytes import LowBitBytes

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit


@dataclass(frozen=True)
class Binary(Base):
    """w = a sign(w), a = mean|w| of a group of `group_size` inputs (0: the whole row), which is the
    nearest in the least squares sense (Rastegari et al. 2016, XNOR-Net, equation 6).

    Binary-Weight-Networks: activations keep their bits, unlike XNOR-Net's. As there, the last layer
    is spared: the head keeps `head_bits` bits (0: it is binary too). Without training a language
    model loses nearly all it knows; see qat.
    """

    group_size: int = 64
    head_bits: int = 8

    name: ClassVar[str] = "binary"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Binary weights, group scales"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"group_size": (0, 32, 64, 128)}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"head_bits": (0, 8)}

    def effect(self, before: Effects, case: Case) -> Effects:
        """One bit a weight and a 16-bit scale per group; the head in `head_bits` bits."""
        return few_values(before, LowBitBytes(1, self.group_size, self.name), self.head_bits)

    def apply(self, deployment: Any) -> None:
        """Replace every matrix by packed codes."""
        from core.techniques.solve.matrices import replace_each_but_head

        replace_each_but_head(deployment, self.form, self.head_bits)

    def form(self, weight: Tensor) -> LowBit:
        """The weight [n, k] in two values; 0 counts as positive."""
        import torch

        from core.techniques.solve.groups import check_fp16_scales, grouped
        from kernels.linear_lowbit import LowBit
        from kernels.linear_lowbit.codes import round_scale

        check_fp16_scales(weight, 0)
        size = self.group_size or weight.shape[1]
        groups, real = grouped(weight, size)
        scale, _ = round_scale(groups.abs().sum(2) / real.sum(2), "fp16")
        return LowBit((weight >= 0).to(torch.uint8), scale, None, 1, size, "binary")
