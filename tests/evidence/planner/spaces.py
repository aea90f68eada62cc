"""Spaces of plans that are small enough to be measured whole, so that a search can be held against
the truth. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from core import techniques
from core.catalogue import models, workloads
from core.data.arrivals import with_arrivals
from core.plan import Case, Plan
from core.predict import fit
from core.target import Target
from core.techniques.kinds import refuse

# Part by part, in the order of a plan; "" leaves the part out.
WEIGHTS = (
    "", "cast:dtype=fp32", "weight-int8", "weight-int4", "weight-int4:group_size=128",
    "rtn:bits=8", "rtn:bits=6", "rtn:bits=5", "rtn:bits=3", "rtn:bits=2", "gptq:bits=4,samples=16",
    "gptq:bits=3,samples=16", "nf4", "fp4", "fp8", "fp8:activations=8", "w8a8", "llm-int8",
    "ternary", "binary",
)  # fmt: skip
PRUNED = ("", "prune-mlp:sparsity=0.25", "prune-mlp:sparsity=0.5")
CACHES = ("", "kv-cache:bits=8", "kv-cache:bits=4")
DRAFTS = ("", "speculative:tokens=2", "speculative:tokens=4", "speculative:tokens=8")
BATCHES = tuple("" if size == 1 else f"static-batch:size={size}" for size in (1, 2, 3, 4, 6, 8))
IMAGE_WEIGHTS = (
    "",
    *(
        f"rtn:bits={bits},symmetric={symmetric},granularity={granularity}"
        for bits, symmetric, granularity in product(
            (8, 7, 6, 5, 4, 3, 2), (0, 1), ("channel", "tensor")
        )
    ),
)


@dataclass(frozen=True)
class Space:
    """Every combination of the `parts` for a case; `arrival` and `concurrency` change the
    workload where they are given.
    """

    model: str
    workload: str
    parts: tuple[Sequence[str], ...]
    arrival: str = ""
    concurrency: int | None = None

    def plans(self, target: Target) -> tuple[Plan, ...]:
        """The unchanged model first; what cannot run is left out, and so is what is the same
        techniques again.
        """
        workload = with_arrivals(workloads.resolve(self.workload), self.arrival)
        if self.concurrency is not None:
            workload = replace(workload, concurrency=self.concurrency)
        case = Case(models.resolve(self.model), target, workload)
        plans: dict[str, Plan] = {}
        for texts in product(*self.parts):
            plan = Plan(case, tuple(techniques.parse(text) for text in texts if text))
            if refuse(plan) is None and fit(plan) is None:
                plans.setdefault(plan.key, plan)
        return tuple(plans.values())


SPACES = {
    "pycode-chat": Space("pycode", "chat", (PRUNED, WEIGHTS, CACHES, DRAFTS[:2])),
    "small-batch": Space(
        "pycode-small", "batch", (PRUNED[:2], WEIGHTS, CACHES[:2], BATCHES), arrival="20"
    ),
    "digits": Space("digits-cnn", "sensor-frame", (IMAGE_WEIGHTS, BATCHES), concurrency=8),
}


def spelled(plan: Plan) -> str:
    """A plan's techniques as the command line writes them."""
    return "+".join(map(techniques.spell, plan.techniques))
