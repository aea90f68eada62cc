"""FP8: 8-bit floats with one scale a row, for the weights or for both sides of each product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import Base, Proposal
from core.techniques.effects import Effects
from kernels.lowbit_bytes import Fp8Bytes, LowBitBytes


@dataclass(frozen=True)
class Fp8(Base):
    """w = s q, q in E4M3 (or E5M2), s = max|w| / 448 (57,344) of a row (Micikevicius et al. 2022).

    With 16 `activations` bits only memory is saved: a product is done in 16 or 32 bits. With 8 each
    token's inputs are rounded to E4M3 too, under a scale of their own, and FP8 numbers are
    multiplied: by FP8 units where there are any, elsewhere exactly as they would, at no gain in
    speed over weights alone.
    """

    format: str = "e4m3"
    activations: int = 16

    name: ClassVar[str] = "fp8"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "FP8, per channel and per token"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "format": ("e4m3", "e5m2"),
        "activations": (16, 8),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activations == 8 and self.format != "e4m3":
            raise ValueError("activations=8 belongs to format=e4m3, which FP8 units multiply")

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """E4M3, which has the finer steps (weights do not need E5M2's range), on one side and on
        both.
        """
        return (Proposal(cls()), Proposal(cls(activations=8)))

    def effect(self, before: Effects, case: Case) -> Effects:
        """One byte a weight and a scale per output row, of 16 bit for E4M3 and of 32 for E5M2."""
        if self.activations == 8:
            return replace(before, stored=Fp8Bytes(8, kind="e4m3"))
        scales = "fp32" if self.format == "e5m2" else "fp16"
        return replace(before, stored=LowBitBytes(8, kind=self.format, scale_format=scales))

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes."""
        from core.techniques.solve.matrices import replace_each
        from kernels import linear_fp8
        from kernels.linear_lowbit import quantize

        if self.activations == 8:
            replace_each(deployment, lambda matrix: linear_fp8.quantize(matrix.dense()))
        else:
            # E5M2 reaches 57,344: scales of usual weights are too small for fp16.
            scales = "fp32" if self.format == "e5m2" else None
            replace_each(
                deployment,
                lambda matrix: quantize(
                    matrix.dense(), 8, matrix.k, self.format, scale_format=scales
                ),
            )
