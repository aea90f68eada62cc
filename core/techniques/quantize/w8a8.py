"""INT8 weights and INT8 activations, dynamic or static, with SmoothQuant's rescaling on request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import QUICK, Base, Proposal
from core.techniques.effects import Effects
from kernels.w8a8_bytes import W8A8Bytes


@dataclass(frozen=True)
class W8A8(Base):
    """Weights int8 per output row, activations int8: with a scale for each token (`dynamic`) or one
    for the whole matrix from calibration (`static`). Sums are int32.

    `smooth` is SmoothQuant's alpha (Xiao et al. 2023, equation 4), 0 leaves it out: it moves the
    activations' outliers into the weights, folded into norms and matrices, at no cost later.
    `percentile` of |x| is the largest value that a static scale holds; 100 is the largest seen.
    """

    mode: str = "dynamic"
    smooth: float = 0.0
    percentile: float = 100.0

    name: ClassVar[str] = "w8a8"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "INT8 weights and activations"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"mode": ("dynamic", "static")}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"smooth": (0, 1), "percentile": (50, 100)}

    # A microcontroller runs every plan as int8: what 8 bit does to the answers is worth knowing.
    searched_for: ClassVar[tuple[str, ...]] = ("text", "image", "mcu")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.percentile < 100 and self.mode == "dynamic":
            raise ValueError("percentile belongs to mode=static; each token has its own scale")

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Dynamic and static; for text both with and dynamic also without SmoothQuant."""
        if case.target.kind == "mcu":
            return (Proposal(cls("static"), QUICK),)
        if case.model.task != "text":
            return (Proposal(cls(), QUICK), Proposal(cls("static")))
        others = (cls(smooth=0.8), cls("static", 0.8))
        return (Proposal(cls(), QUICK), *map(Proposal, others))

    def refuse(self, case: Case) -> str | None:
        """SmoothQuant needs norms to fold its scales into."""
        if self.smooth and case.model.task != "text":
            return "smooth needs a decoder, whose norms take the scales; use smooth=0"
        return None

    @property
    def calibrates(self) -> bool:
        """Static scales and SmoothQuant's need to see inputs."""
        return self.mode == "static" or self.smooth > 0

    def effect(self, before: Effects, case: Case) -> Effects:
        """One byte a weight and a 32-bit scale per output row."""
        return replace(before, stored=W8A8Bytes(self.mode == "static"))

    def apply(self, deployment: Any) -> None:
        """Replace every matrix, the head included, by int8 codes for linear_w8a8."""
        from core.techniques.solve.smoothquant import apply_w8a8

        apply_w8a8(deployment, self)
