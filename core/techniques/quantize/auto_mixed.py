"""Automatic mixed precision: each matrix in as few bits as the user's limit allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case
from core.priorities import Limit
from core.techniques.base import STANDARD, Calibrated, Proposal
from core.techniques.effects import Effects
from core.techniques.solve.allocation import WIDTHS
from kernels.lowbit_bytes import LowBitBytes

MIB = 1 << 20


@dataclass(frozen=True)
class AutoMixed(Calibrated):
    """Lower precision matrix by matrix until quality falls below a limit.

    Every matrix is scored at 2, 3, 4, 6 and 8 bit, rounded to nearest in groups of `group_size`:
    by `score` "gradient" (one backward pass) or "trying" (the model is run for each). Then the bits
    are chosen: with `max_mib` above 0, the least loss within so many MiB of resident weights; else
    the fewest bytes read per token whose KL to the unchanged model stays within `max_kl` nats. The
    matrices are rounded by `method`, "gptq" or to "nearest"; the KL is measured on other
    calibration text with the kernels that will serve, and precision is given back until it is a
    quarter below the limit, for other text loses more.
    A matrix may stay in 16 bit. `samples` sequences of 256 tokens of training text (images for a
    classifier), half to score and half to measure; GPTQ draws its own.
    """

    max_kl: float = 0.02
    max_mib: float = 0.0
    score: str = "gradient"
    group_size: int = 32
    samples: int = 16
    method: str = "gptq"

    name: ClassVar[str] = "auto-mixed"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Automatic mixed precision"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "score": ("gradient", "trying"),
        "group_size": (32, 64, 128),
        "method": ("gptq", "nearest"),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "max_mib": (0, 1 << 20),
        "samples": (2, 1024),
    }
    positive: ClassVar[tuple[str, ...]] = ("max_kl",)

    needs_trained: ClassVar[bool] = True

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Three limits on the quality."""
        return (
            Proposal(cls(0.02), STANDARD, turn=160),
            *(Proposal(cls(max_kl)) for max_kl in (0.005, 0.1)),
        )

    def refuse(self, case: Case) -> str | None:
        """Random weights have no quality to keep."""
        if case.model.source == "shape":
            return "needs a trained model: the answers of random weights are noise"
        return None

    def within(self, limits: Sequence[Limit], stated: Collection[str] = ()) -> AutoMixed:
        """The study's limit on the KL, else that on the size, where the user stated neither."""
        if {"max_kl", "max_mib"} & set(stated):
            return self
        upper = {
            limit.metric: limit.value
            for limit in limits
            if limit.relation == "<=" and limit.value > 0
        }
        if "kl_nats" in upper:
            return replace(self, max_kl=upper["kl_nats"])
        if "model_bytes" in upper and upper["model_bytes"] / MIB <= self.limits["max_mib"][1]:
            return replace(self, max_mib=upper["model_bytes"] / MIB)
        return self

    def scored(self) -> tuple[str, str]:
        """The origin of the matrices' scores, and how they are found."""
        if self.score == "trying":
            return "measured", "KL of the model with this matrix alone rounded, on calibration data"
        return (
            "estimated",
            "half the mean square of a matrix's change times the gradient of the model's own"
            " log-probabilities, one backward pass over calibration data",
        )

    def promise(self) -> Limit:
        """At most so much KL, or so many bytes."""
        if self.max_mib:
            return Limit("model_bytes", "<=", self.max_mib * MIB)
        return Limit("kl_nats", "<=", self.max_kl)

    def effect(self, before: Effects, case: Case) -> Effects:
        """The choice is known after the search only: 4 bit stand for it, as an unknown effect."""
        size = self.group_size
        return replace(
            before,
            stored=LowBitBytes(4, size, zero="int8"),
            possible=tuple(LowBitBytes(bits, size, zero="int8") for bits in WIDTHS),
            unknown=(*before.unknown, self.name),
        )

    def apply(self, deployment: Any) -> None:
        """Score, choose, replace, measure; the scores are kept with the trial."""
        from core.techniques.solve.auto_search import search

        search(deployment, self)
