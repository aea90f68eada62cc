"""Weight-only FP4: 4-bit floats (E2M1) with group scales."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import Base
from core.techniques.effects import Effects
from kernels.lowbit_bytes import LowBitBytes


@dataclass(frozen=True)
class Fp4(Base):
    """w = s q, q in 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, s = max|w| / 6 of a group of
    `group_size` inputs (OCP Microscaling Formats 1.0, element type E2M1).

    The scale has 16 bits where MXFP4 has a power of two. Weights only: no device we support
    multiplies in FP4, so a product is done in 16 or 32 bits.
    """

    group_size: int = 32

    name: ClassVar[str] = "fp4"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Weight-only FP4 (E2M1), group scales"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"group_size": (32, 64, 128)}

    def effect(self, before: Effects, case: Case) -> Effects:
        """Half a byte a weight and a 16-bit scale per group."""
        return replace(before, stored=LowBitBytes(4, self.group_size, "fp4"))

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes."""
        from core.techniques.solve.matrices import replace_each
        from kernels.linear_lowbit import quantize

        replace_each(deployment, lambda matrix: quantize(matrix.dense(), 4, self.group_size, "fp4"))
