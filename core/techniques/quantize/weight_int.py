"""Two names for settings of rtn that plans have had since the first release: they keep their key,
their title and the settings that they offer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Proposal
from core.techniques.quantize.rtn import RoundToNearest


@dataclass(frozen=True)
class WeightInt8(RoundToNearest):
    """rtn:bits=8,symmetric=1,granularity=channel: q = round(w / s) in -128 .. 127, one s a row. The
    value m of largest magnitude becomes -128 exactly: s = -m / 128, of either sign. Activations
    stay 16 bit.
    """

    bits: int = field(default=8, init=False)
    group_size: int = field(default=0, init=False)
    symmetric: int = field(default=1, init=False)
    granularity: str = field(default="channel", init=False)

    name: ClassVar[str] = "weight-int8"
    title: ClassVar[str] = "Weight-only INT8, per channel"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}
    searched_for: ClassVar[tuple[str, ...]] = ("text",)

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """The one setting there is, which loses next to nothing."""
        return (Proposal(cls(), QUICK, role="safe"),)


@dataclass(frozen=True)
class WeightInt4(RoundToNearest):
    """rtn:bits=4,symmetric=0,granularity=group: affine 4-bit codes in groups of `group_size` along
    the input; activations stay 16 bit.
    """

    bits: int = field(default=4, init=False)
    group_size: int = 32
    symmetric: int = field(default=0, init=False)
    granularity: str = field(default="group", init=False)

    name: ClassVar[str] = "weight-int4"
    title: ClassVar[str] = "Weight-only INT4, group scales"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"group_size": (32, 64, 128)}
    searched_for: ClassVar[tuple[str, ...]] = ("text",)

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Small groups, then wide ones."""
        return (Proposal(cls(), QUICK, role="small"), Proposal(cls(128), STANDARD))
