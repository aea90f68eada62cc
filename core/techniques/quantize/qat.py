"""Quantization-aware training: the weights learn under the rounding that they will have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.plan import Case
from core.techniques.base import STANDARD, Proposal, Trained
from core.techniques.effects import Effects, integers
from core.techniques.quantize.gptq import Gptq


@dataclass(frozen=True)
class Qat(Trained):
    """Fake quantization with a straight-through estimator (Bengio et al. 2013) and learned scales
    (LSQ, Esser et al. 2020), then real packing of the codes it ended with.

    Integers of `bits` in groups of `group_size` along the input, symmetric or with a whole zero. It
    starts at the codes of `start`: GPTQ's ("gptq"), or the nearest to the weights under searched
    scales ("nearest"). `loss` is "kl", towards the unchanged model's distribution, or "ce", the
    next token. Each of `steps` steps reads 4 windows of 256 tokens of training text.
    `learning_rate` is counted in quantization steps over bits: an optimizer step moves a weight by
    up to learning_rate / bits of its group's scale.
    """

    bits: int = 4
    group_size: int = 32
    symmetric: int = 0
    steps: int = 100
    learning_rate: float = 0.01
    loss: str = "kl"
    start: str = "gptq"

    name: ClassVar[str] = "qat"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "Quantization-aware training"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "bits": (2, 3, 4),
        "group_size": (32, 64, 128),
        "symmetric": (0, 1),
        "loss": ("kl", "ce"),
        "start": ("gptq", "nearest"),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {"steps": (1, 100_000)}
    positive: ClassVar[tuple[str, ...]] = ("learning_rate",)

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Training pays most where rounding alone loses most."""
        return (Proposal(cls(3), STANDARD, turn=161), Proposal(cls(2)), Proposal(cls(4)))

    @property
    def calibrates(self) -> bool:
        """GPTQ's codes to start from are calibrated."""
        return self.start == "gptq"

    def effect(self, before: Effects, case: Case) -> Effects:
        """The format of `rtn`, with the codes that training ended with."""
        return integers(before, self.bits, self.group_size, self.symmetric)

    def beginning(self) -> Gptq | None:
        """What chooses the codes that training starts from; None where they are the nearest."""
        return Gptq(self.bits, self.group_size, self.symmetric) if self.start == "gptq" else None

    def apply(self, deployment: Any) -> None:
        """Train under rounding, then replace every matrix by its packed codes."""
        from core.techniques.solve.qat_training import train

        train(deployment, self)
