"""Distillation with soft targets: the changed model learns from the original on the training part
of its data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import QUICK, Proposal, Trained
from core.techniques.effects import Effects


@dataclass(frozen=True)
class SoftTargets(Trained):
    """Loss (1 - alpha) CE(y, p_s) + alpha T^2 KL(p_t^T || p_s^T) (Hinton et al. 2015),
    for `steps` steps.

    `steps` is the stated budget; each step reads 4 windows of 256 tokens of the model's training
    text.
    """

    steps: int = 40
    alpha: float = 0.9
    temperature: float = 2.0
    learning_rate: float = 5e-4

    name: ClassVar[str] = "distill-soft"
    kind: ClassVar[str] = "distill"
    title: ClassVar[str] = "Distillation with soft targets"
    limits: ClassVar[dict[str, tuple[float, float]]] = {"steps": (1, 100_000), "alpha": (0, 1)}
    positive: ClassVar[tuple[str, ...]] = ("temperature", "learning_rate")

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Behind what was pruned."""
        return (Proposal(cls(), QUICK, role="mend", alone=False),)

    def refuse(self, case: Case) -> str | None:
        """Needs a decoder with training text: the bundled language models have it."""
        if case.model.task != "text":
            return "needs a decoder; image classifiers are not distilled yet"
        return super().refuse(case)

    def effect(self, before: Effects, case: Case) -> Effects:
        """Other values in the same tensors: neither bytes nor work change."""
        return before

    def apply(self, deployment: Any) -> None:
        """Train the current weights against the unchanged model."""
        from core.techniques.distill.training import distill

        distill(deployment, self)
