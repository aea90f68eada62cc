"""What every technique starts from: nothing to refuse, no change of the workload."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from core.plan import Case, Technique
from core.priorities import Limit


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

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """The default setting alone."""
        return (cls(),)

    def refuse(self, case: Case) -> str | None:
        """Nothing to refuse."""
        return None

    def within(self, limits: Sequence[Limit], stated: Collection[str] = ()) -> Technique:
        """Itself: no setting promises a limit."""
        return self

    def promise(self) -> Limit | None:
        """Nothing promised."""
        return None

    def apply(self, deployment: Any) -> None:
        """Nothing to change in the weights."""
