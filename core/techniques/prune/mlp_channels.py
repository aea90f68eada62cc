"""Structured pruning of MLP channels by what they say: the matrices really shrink."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Calibrated, Proposal
from core.techniques.effects import Effects


@dataclass(frozen=True)
class PruneMlpChannels(Calibrated):
    """Remove the share `sparsity` of every layer's MLP channels whose removal changes the layer's
    output least on calibration text.

    Widths stay multiples of 32, so that group-wise quantization still fits.
    """

    sparsity: float = 0.25

    name: ClassVar[str] = "prune-mlp"
    kind: ClassVar[str] = "prune"
    title: ClassVar[str] = "Structured pruning of MLP channels"

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity must lie between 0 and 1, not {self.sparsity}")

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """A quarter, then a half."""
        return (
            Proposal(cls(0.25), QUICK, role="mild"),
            Proposal(cls(0.5), STANDARD, role="strong", turn=125),
        )

    def refuse(self, case: Case) -> str | None:
        """Needs a decoder of the Llama family."""
        if case.model.task != "text":
            return "needs a decoder with gated MLPs; this model is an image classifier"
        return None

    def effect(self, before: Effects, case: Case) -> Effects:
        """Fewer MLP channels in every layer."""
        return replace(before, sparsity=(*before.sparsity, self.sparsity))

    def apply(self, deployment: Any) -> None:
        """Slice gate, up and down of every layer to the kept channels."""
        from core.techniques.prune.slicing import slice_mlp

        slice_mlp(deployment, self.sparsity)
