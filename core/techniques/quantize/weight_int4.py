"""Weight-only INT4 round-to-nearest with group scales, run by a packed INT4 kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.techniques.base import Base


@dataclass(frozen=True)
class WeightInt4(Base):
    """Affine 4-bit codes in groups of `group_size` along the input; activations stay 16 bit
    (coverage Q4).
    """

    group_size: int = 32

    name: ClassVar[str] = "weight-int4"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Weight-only INT4, group scales"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"group_size": (32, 64, 128)}

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed INT4."""
        from core.techniques.solve.replace import replace_each
        from kernels.linear_lowbit import quantize

        replace_each(
            deployment, lambda one: quantize(one.dense(), 4, self.group_size, symmetric=False)
        )
