"""Weight-only NF4: 16 levels at the quantiles of a normal distribution, scales quantized again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import QUICK, Base, Proposal
from core.techniques.effects import Effects
from kernels.lowbit_bytes import LowBitBytes


@dataclass(frozen=True)
class NormalFloat4(Base):
    """w = s level[q] with s the largest magnitude of a group of `group_size` inputs (Dettmers et
    al. 2023, QLoRA, section 3).

    With `double` = 1 the scales are kept in 8 bit, on an affine grid shared by the groups of 16
    rows, where QLoRA has an 8-bit float shared by 256 scales. QLoRA's paged state is the
    optimizer's: it pages Adam's moments out of a GPU's memory while adapters are trained. There is
    no optimizer here, so there is nothing to page.
    """

    group_size: int = 64
    double: int = 1

    name: ClassVar[str] = "nf4"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Weight-only NF4, double quantization"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"group_size": (32, 64, 128), "double": (0, 1)}

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """QLoRA's setting, which adapters are put beside, and its scales in 16 bit."""
        return (Proposal(cls(), QUICK, role="frozen", alone=False), Proposal(cls(double=0)))

    @property
    def scale_format(self) -> str:
        """How the scales are kept."""
        return "u8" if self.double else "fp16"

    def effect(self, before: Effects, case: Case) -> Effects:
        """Half a byte a weight and a scale of 8 or 16 bit per group."""
        return replace(before, stored=LowBitBytes(4, self.group_size, "nf4", self.scale_format))

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes."""
        from core.techniques.solve.matrices import replace_each
        from kernels.linear_lowbit import quantize

        def form(matrix: Any) -> Any:
            return quantize(
                matrix.dense(), 4, self.group_size, "nf4", scale_format=self.scale_format
            )

        replace_each(deployment, form)
