"""Static batching: several sequences are decoded together, each step reads the weights once for all
of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.plan import Case, Technique
from core.techniques.base import Base
from core.workload import Workload


@dataclass(frozen=True)
class StaticBatch(Base):
    """Serve `size` requests of equal length together (coverage B1): throughput is bought with
    latency.
    """

    size: int = 4

    name: ClassVar[str] = "static-batch"
    kind: ClassVar[str] = "batch"
    title: ClassVar[str] = "Static batching"
    limits: ClassVar[dict[str, tuple[float, float]]] = {"size": (1, 1024)}

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """The throughput / latency curve: 1, 2, 4, 8, 16."""
        return tuple(cls(size) for size in (1, 2, 4, 8, 16))

    def reshape(self, workload: Workload) -> Workload:
        """At least `size` requests at once; a workload with more is served in groups of `size`."""
        return replace(workload, concurrency=max(self.size, workload.concurrency))

    def apply(self, deployment: Any) -> None:
        """Tell the run loop how many sequences go together."""
        deployment.batch = self.size
