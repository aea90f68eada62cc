"""INT8 weights and INT8 activations, dynamic or static, with SmoothQuant's rescaling on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import Base


@dataclass(frozen=True)
class W8A8(Base):
    """Weights int8 per output row, activations int8: with a scale for each token (`dynamic`) or one
    for the whole matrix from calibration (`static`). Sums are int32 (coverage Q3).

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.percentile < 100 and self.mode == "dynamic":
            raise ValueError("percentile belongs to mode=static; each token has its own scale")

    @classmethod
    def candidates(cls, case: Case) -> tuple[W8A8, ...]:
        """Dynamic and static; for text both with and dynamic also without SmoothQuant."""
        if case.model.task != "text":
            return cls(), cls("static")
        return cls(), cls(smooth=0.8), cls("static", 0.8)

    def refuse(self, case: Case) -> str | None:
        """SmoothQuant needs norms to fold its scales into."""
        if self.smooth and case.model.task != "text":
            return "smooth needs a decoder, whose norms take the scales; use smooth=0"
        return None

    def apply(self, deployment: Any) -> None:
        """Replace every matrix, the head included, by int8 codes for linear_w8a8."""
        from core.techniques.solve.smoothquant import apply_w8a8

        apply_w8a8(deployment, self)
