"""Weight-only integers of 1 to 8 bit by rounding to nearest: no data, no calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Base, Proposal
from core.techniques.effects import Effects, integers

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit


@dataclass(frozen=True)
class RoundToNearest(Base):
    """w = s (q - z) with q = round(w / s) + z in 0 .. 2^bits - 1.

    Symmetric (absmax): z = 2^(bits-1), s from the largest magnitude. Affine (zero point): s and z
    from the smallest and the largest value. One s for a `group` of `group_size` inputs (0: the
    whole row), for a `channel` (row of the weight) or for the whole `tensor`; each row keeps its
    copy of a tensor's s. Activations stay as they are.
    """

    bits: int = 4
    group_size: int = 32
    symmetric: int = 0
    granularity: str = "group"

    name: ClassVar[str] = "rtn"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Weight-only, 1 to 8 bit, round to nearest"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "bits": (1, 2, 3, 4, 5, 6, 7, 8),
        "group_size": (0, 32, 64, 128),
        "symmetric": (0, 1),
        "granularity": ("group", "channel", "tensor"),
    }
    searched_for: ClassVar[tuple[str, ...]] = ("text", "image")

    @property
    def group(self) -> int:
        """Inputs that share a scale within a row; 0 for all of them."""
        return self.group_size if self.granularity == "group" else 0

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """The trade-off curve from 8 to 2 bit; on text weight_int.py's names stand for 8 and 4."""
        tried = {8: (QUICK, 1), 4: (QUICK, 2)}
        if case.model.task == "text":
            tried = {3: (STANDARD, 101)}
        return tuple(
            Proposal(cls(bits), depth, turn=turn)
            for bits in (4, 8, 6, 5, 3, 2)
            for depth, turn in (tried.get(bits, ("", None)),)
        )

    def effect(self, before: Effects, case: Case) -> Effects:
        """So many bits a weight, a 16-bit scale and, when affine, a zero of a byte per group."""
        return integers(before, self.bits, self.group, self.symmetric)

    def apply(self, deployment: Any) -> None:
        """Replace every matrix of the layers, the head included, by packed codes."""
        from core.techniques.solve.matrices import replace_each

        replace_each(deployment, lambda matrix: self.form(matrix.dense()))

    def form(self, weight: Tensor) -> LowBit:
        """The weight [n, k], rounded."""
        from kernels.linear_lowbit import LowBit, quantize

        n, k = weight.shape
        symmetric = bool(self.symmetric)
        if self.granularity != "tensor":
            return quantize(weight, self.bits, self.group or k, symmetric=symmetric)
        flat = quantize(weight.reshape(1, -1), self.bits, n * k, symmetric=symmetric)
        zero = None if flat.zero is None else flat.zero.expand(n, 1).contiguous()
        scale = flat.scale.expand(n, 1).contiguous()
        return LowBit(flat.codes.view(n, k), scale, zero, self.bits, k)
