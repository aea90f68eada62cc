"""What every technique starts from, and what it may say of itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from core.plan import Case, Technique
from core.priorities import Limit
from core.techniques.effects import Effects

# How thorough a search has to be to try a proposal unasked.
QUICK, STANDARD = "quick", "standard"


@dataclass(frozen=True)
class Proposal:
    """A setting that is worth measuring for a case.

    `depth` is the least thorough search that tries it unasked, "" none. `alone` is whether it makes
    a plan of its own; `role` names its part in the stacks of core.techniques.kinds. Lower turns are
    tried first; None is the kind's, with what only thorough searches try behind all else.
    """

    technique: Technique
    depth: str = ""
    role: str = ""
    alone: bool = True
    turn: int | None = None


class Base:
    """Defaults of the Technique protocol (core.plan); a technique is a frozen dataclass that
    derives from this.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    title: ClassVar[str] = ""
    # Of fields that take few values only: which. Pages offer them.
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}
    # Of numbers: the least and the largest value; and those that may be all above 0.
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    positive: ClassVar[tuple[str, ...]] = ()
    # What a search tries it on unasked: language models ("text"), image classifiers ("image"),
    # models on a microcontroller ("mcu"); and whether it is pointless on random weights.
    searched_for: ClassVar[tuple[str, ...]] = ("text",)
    needs_trained: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise ValueError with a sentence for a field outside of what is said above."""
        for name, known in self.choices.items():
            value = getattr(self, name)
            if value not in known:
                words = ", ".join(map(str, known))
                raise ValueError(f"{name} must be one of {words}, not {value!r:.40}")
        for name, (least, most) in self.limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} must lie between {least} and {most}, not {value:g}")
        for name in self.positive:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, not {value:g}")

    @property
    def rounds(self) -> bool:
        """Whether it puts matrices into codes, which lose what lies between them."""
        return self.kind == "quantize"

    @property
    def calibrates(self) -> bool:
        """Whether applying it reads calibration data."""
        return False

    @property
    def training_steps(self) -> int:
        """Optimizer steps that applying it takes; 0 for what does not train."""
        return 0

    @property
    def sequences(self) -> int:
        """How many requests it serves together at most."""
        return 1

    def with_steps(self, steps: int) -> Self:
        """Itself with so many training steps, if it trains."""
        return self

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Settings worth measuring for `case`, the best guess first: here the defaults, on request
        alone.
        """
        return (Proposal(cls()),)

    def refuse(self, case: Case) -> str | None:
        """Nothing to refuse."""
        return None

    def refuse_beside(self, others: Collection[Technique]) -> str | None:
        """Nothing that it could not stand beside, apart from what its kind says."""
        return None

    def within(self, limits: Sequence[Limit], stated: Collection[str] = ()) -> Technique:
        """Itself: no setting promises a limit."""
        return self

    def promise(self) -> Limit | None:
        """Nothing promised."""
        return None

    def effect(self, before: Effects, case: Case) -> Effects:
        """Nothing is claimed: whoever predicts widens the interval."""
        return replace(before, unknown=(*before.unknown, self.name))

    def apply(self, deployment: Any) -> None:
        """Nothing to change in the weights."""


class Calibrated(Base):
    """A technique that reads calibration data, whatever its settings."""

    @property
    def calibrates(self) -> bool:
        """See Base."""
        return True


class Trained(Base):
    """A technique that trains for `steps` optimizer steps, which only a trained model repays."""

    needs_trained: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    steps: int

    @property
    def training_steps(self) -> int:
        """See Base."""
        return self.steps

    def with_steps(self, steps: int) -> Self:
        """See Base."""
        return replace(self, steps=steps)  # type: ignore[type-var]

    def refuse(self, case: Case) -> str | None:
        """Needs something to learn from."""
        if case.model.source == "shape":
            return "a shape model has random weights: there is nothing to learn from it"
        return None
