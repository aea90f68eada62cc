"""Low-rank adapters beside quantized matrices, trained to give back what rounding lost."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.files.storage import AdaptedBytes
from core.plan import Case, Technique
from core.techniques.base import QUICK, Proposal, Trained
from core.techniques.effects import Effects
from kernels.lowbit_bytes import LowBitBytes

# What rounds dense matrices when no technique before this one did; QLoRA's format is the default.
BASES = {
    "": "nf4-g64",
    "nf4": "nf4-g64",
    "int4": "int4-g32",
    "int3": "int3-g32",
    "int2": "int2-g32",
}
_BASE = re.compile(r"(?:int[2-8]|nf4|fp4)-g(?:32|64|128)")


@dataclass(frozen=True)
class Lora(Trained):
    """W0 + (alpha / rank) B A with W0 quantized and frozen (LoRA, Hu et al. 2021; QLoRA, Dettmers
    et al. 2023), trained towards the unchanged model for `steps` steps of 4 windows
    of 256 tokens of training text.

    W0 is what a technique of kind quantize before this one made. On a model that none has changed,
    W0 is its matrices rounded to `base` (nf4, int4, int3, int2, or a format as int4-g64). The
    adapters stay beside W0 in 16 bit and are never merged into it.
    """

    rank: int = 8
    alpha: float = 16.0
    steps: int = 200
    learning_rate: float = 2e-3
    base: str = ""

    name: ClassVar[str] = "lora"
    kind: ClassVar[str] = "recover"
    title: ClassVar[str] = "Low-rank adapters on the quantized model"
    limits: ClassVar[dict[str, tuple[float, float]]] = {"rank": (1, 256), "steps": (1, 100_000)}
    positive: ClassVar[tuple[str, ...]] = ("alpha", "learning_rate")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in BASES and not _BASE.fullmatch(self.base):
            known = ", ".join(filter(None, BASES))
            raise ValueError(f"base must be {known} or a format as int4-g64, not {self.base!r}")

    @property
    def base_format(self) -> str:
        """The format that dense matrices are rounded to."""
        return BASES.get(self.base, self.base)

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Beside QLoRA's NF4."""
        return (Proposal(cls(), QUICK, role="mend", alone=False),)

    def refuse(self, case: Case) -> str | None:
        """Needs a decoder that was trained."""
        if case.model.task != "text":
            return "needs a decoder; an image classifier is recovered by qat"
        return super().refuse(case)

    def refuse_beside(self, others: Collection[Technique]) -> str | None:
        """A base of its own is for a plan that does not quantize."""
        if self.base and any(other.kind == "quantize" for other in others):
            return "the plan quantizes already, so there is nothing to do for base"
        return None

    def effect(self, before: Effects, case: Case) -> Effects:
        """Two thin dense matrices beside every quantized one; a dense model is rounded first."""
        if before.stored is None:
            name, _, group = self.base_format.partition("-g")
            bits = int(name[3:]) if name.startswith("int") else 4
            kind, zero = ("int", "int8") if name.startswith("int") else (name, "")
            before = replace(before, stored=LowBitBytes(bits, int(group), kind, zero=zero))
        assert before.stored is not None
        stored = AdaptedBytes(before.stored, self.rank, before.item)
        mix = tuple(
            (name, form and AdaptedBytes(form, self.rank, before.item)) for name, form in before.mix
        )
        return replace(before, stored=stored, mix=mix)

    def apply(self, deployment: Any) -> None:
        """Quantize what is dense when nothing is quantized yet, then train adapters beside it."""
        from core.techniques.recover.lora_training import train

        train(deployment, self)
