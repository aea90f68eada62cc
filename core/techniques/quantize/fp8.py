"""Weight-only FP8: 8-bit floats with one scale a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.plan import Case, Technique
from core.techniques.base import Base


@dataclass(frozen=True)
class Fp8(Base):
    """w = s q, q in E4M3 (or E5M2), s = max|w| / 448 (57,344) of a row (Micikevicius et al. 2022;
    coverage Q10).

    Weights only: activations keep their 16 bits and a product is done in 16 or 32 bits. What FP8
    arithmetic gains on a GPU that has it is not claimed here; on a CPU, which has none, memory is
    what it saves.
    """

    format: str = "e4m3"

    name: ClassVar[str] = "fp8"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Weight-only FP8, per channel"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"format": ("e4m3", "e5m2")}

    def __post_init__(self) -> None:
        if self.format not in ("e4m3", "e5m2"):
            raise ValueError(f"format must be e4m3 or e5m2, not {self.format!r}")

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """E4M3, which has the finer steps; weights do not need E5M2's range."""
        return (cls(),)

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes."""
        from core.techniques.quantize.replace import replace_each
        from kernels.linear_lowbit import quantize

        replace_each(deployment, lambda one: quantize(one.dense(), 8, one.k, self.format))
