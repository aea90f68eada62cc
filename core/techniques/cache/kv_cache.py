"""The KV cache in 8, 4 or 2 bits, read as codes by an attention kernel of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.errors import Refused
from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Base, Proposal
from core.techniques.effects import Effects
from kernels.kv_codes import KVFormat


@dataclass(frozen=True)
class KvCache(Base):
    """Asymmetric codes as KIVI has them (Liu et al. 2024): keys per channel over `group_size`
    tokens, because a few channels of keys are large in every token; values per token over
    `group_size` channels, because a token's weight multiplies all of them. At 8 bit too: one
    layout, one kernel.

    At least the newest `residual` tokens stay in 16 bit; a block becomes codes when so many follow
    it. Unlike KIVI the prompt is read through the codes as well, so that every token, read or
    written, sees what the cache holds: held-out text is judged on the cache that is timed.
    """

    bits: int = 4
    group_size: int = 32
    residual: int = 32

    name: ClassVar[str] = "kv-cache"
    kind: ClassVar[str] = "cache"
    title: ClassVar[str] = "KV cache in 8, 4 or 2 bits"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"bits": (2, 4, 8), "group_size": (32, 64)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.format()

    def format(self) -> KVFormat:
        """How the cache is kept; ValueError for settings that no kernel reads."""
        return KVFormat(self.bits, self.group_size, self.residual)

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """Half of the cache, a quarter, an eighth."""
        return (Proposal(cls(8), QUICK), Proposal(cls(4), STANDARD), Proposal(cls(2)))

    def refuse(self, case: Case) -> str | None:
        """Needs a decoder, and a context in which a block of codes is ever complete."""
        if case.model.task != "text":
            return "needs a decoder; this model is an image classifier"
        tokens = case.workload.prompt_tokens + case.workload.output_tokens
        if not self.format().blocks(tokens):
            return (
                f"{tokens} prompt and output tokens would all stay in 16 bit with"
                f" residual={self.residual} and group_size={self.group_size}: nothing would change"
            )
        return None

    def effect(self, before: Effects, case: Case) -> Effects:
        """Keys and values in codes, the newest ones in the engine's own format."""
        return replace(before, kv=self.format())

    def apply(self, deployment: Any) -> None:
        """From here on every pass of the engine keeps its keys and values in codes."""
        engine, model = deployment.engine.lean, deployment.case.model
        if engine is None:
            raise Refused(
                "kv-cache: a cache in codes needs a model of the Llama family (llama, mistral,"
                f" qwen2, qwen3); {model.id} is {model.family} and runs through transformers"
            )
        plain = engine.new_cache(1, 1024).nbytes
        engine.cache_format = self.format()
        deployment.note(
            f"{engine.cache_format.name}: a cache of 1,024 tokens went from {plain:,} to"
            f" {engine.new_cache(1, 1024).nbytes:,} bytes"
        )
