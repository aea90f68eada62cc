"""What every technique starts from: nothing to refuse, no change of the workload."""

from __future__ import annotations

from typing import Any, ClassVar

from core.plan import Case, Technique
from core.workload import Workload


class Base:
    """Defaults of the Technique protocol (core.plan); a technique is a frozen dataclass that
    derives from this.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    title: ClassVar[str] = ""
    # Of fields that take few values only: which. Pages offer them.
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """The default setting alone."""
        return (cls(),)

    def refuse(self, case: Case) -> str | None:
        """Nothing to refuse."""
        return None

    def reshape(self, workload: Workload) -> Workload:
        """The workload unchanged."""
        return workload

    def apply(self, deployment: Any) -> None:
        """Nothing to change in the weights."""
