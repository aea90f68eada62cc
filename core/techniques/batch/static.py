"""Static batching: several sequences are decoded together, each step reads the weights once for all
of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from core.plan import Case, Technique
from core.techniques.base import Base


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

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """The sizes above 1 that the workload's requests can fill, and a batch of all of them."""
        most = min(case.workload.concurrency, int(cls.limits["size"][1]))
        sizes = {size for size in (2, 4, 8, 16) if size < most} | {most}
        return tuple(cls(size) for size in sorted(sizes) if size > 1)

    def apply(self, deployment: Any) -> None:
        """Tell the run loop how many sequences go together."""
        deployment.batch = self.size
