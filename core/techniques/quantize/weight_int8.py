"""Weight-only INT8: symmetric, one scale per output channel, run by a packed INT8 kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.techniques.base import Base


@dataclass(frozen=True)
class WeightInt8(Base):
    """q = round(w / s), s = max|w| / 127 per row; activations stay 16 bit (coverage Q2, Q4)."""

    name: ClassVar[str] = "weight-int8"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Weight-only INT8, per channel"

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed INT8."""
        from core.techniques.solve.replace import replace_each
        from kernels.linear_lowbit import quantize

        replace_each(deployment, lambda one: quantize(one.dense(), 8, one.k))
