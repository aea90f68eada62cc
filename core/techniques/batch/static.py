"""Static batching: several sequences are decoded together, each step reads the weights once for all
of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.engine.serve.scheduler import Static
from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Base, Proposal
from core.techniques.effects import Effects


@dataclass(frozen=True)
class StaticBatch(Base):
    """Serve up to `size` requests of equal length together: throughput is bought with latency.

    A workload with fewer requests at a time never fills the batch, and gains nothing by it.
    """

    size: int = 4

    name: ClassVar[str] = "static-batch"
    kind: ClassVar[str] = "batch"
    title: ClassVar[str] = "Static batching"
    limits: ClassVar[dict[str, tuple[float, float]]] = {"size": (1, 1024)}

    searched_for: ClassVar[tuple[str, ...]] = ("text", "image")

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """The sizes above 1 that the workload's requests can fill, and a batch of all of them."""
        most = min(case.workload.concurrency, int(cls.limits["size"][1]))
        sizes = [size for size in (2, 4, 8, 16) if size < most] + [most] * (most > 1)
        # A quick search of a language model takes the largest, and one between.
        quick = sizes if case.model.task == "image" else sizes[1:2] + sizes[-1:]
        return tuple(
            Proposal(
                cls(size),
                QUICK if size in quick else STANDARD,
                role="full" if size == sizes[-1] else "",
                turn=40,
            )
            for size in sizes
        )

    def effect(self, before: Effects, case: Case) -> Effects:
        """So many sequences share every reading of the weights, if as many are asked for."""
        return replace(before, batch=min(self.size, case.workload.concurrency))

    @property
    def sequences(self) -> int:
        """See Base."""
        return self.size

    def apply(self, deployment: Any) -> None:
        """Tell the server how many sequences go together."""
        deployment.serving = replace(deployment.serving, scheduler=Static(self.size))
