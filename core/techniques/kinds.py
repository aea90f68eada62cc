"""The kinds of techniques: their order in a plan, how many of each, and the stacks worth trying."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from core.plan import Plan
from core.techniques.base import QUICK, STANDARD


@dataclass(frozen=True)
class Kind:
    """`most` techniques of it a plan can have (None: any number). A kind that only `serves` leaves
    the weights alone. `serial` says why it cannot stand beside a batch above 1. A search tries
    settings of lower `turn` first.
    """

    name: str
    turn: int
    most: int | None = 1
    serves: bool = False
    serial: str = ""


# In the order in which they act: a smaller model, then cheaper weights, then what makes up for
# their loss, then a cheaper way to run.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("prune", turn=10, most=None),
        Kind("distill", turn=10, most=None),
        Kind("quantize", turn=0),
        Kind("recover", turn=0),
        Kind("cache", turn=20, serves=True),
        Kind(
            "decode",
            turn=30,
            serves=True,
            serial="speculative decoding verifies one sequence at a time: it cannot be stacked with"
            " a batch above 1",
        ),
        Kind("batch", turn=40, serves=True),
    )
}


@dataclass(frozen=True)
class Stack:
    """Techniques that are tried together: of each part, `kind` or `kind:role`, the proposals that
    have the role. A part behind `?` is left out where the case has none.
    """

    depth: str
    turn: int
    parts: tuple[str, ...]


# The stacks that the field uses.
STACKS = (
    Stack(QUICK, 50, ("quantize:small", "batch:full")),
    Stack(QUICK, 70, ("quantize:frozen", "recover:mend")),
    Stack(QUICK, 70, ("prune:mild", "distill:mend")),
    Stack(QUICK, 70, ("prune:mild", "distill:mend", "quantize:safe", "?batch:full")),
    Stack(STANDARD, 150, ("quantize:safe", "decode:usual")),
    Stack(STANDARD, 150, ("quantize:safe", "batch:full")),
    Stack(STANDARD, 170, ("prune:strong", "distill:mend")),
    Stack(STANDARD, 170, ("prune:strong", "distill:mend", "quantize:small")),
)


def place(kind: str) -> int:
    """Where techniques of a kind stand in a plan, counted from 0."""
    return list(KINDS).index(kind)


def refuse(plan: Plan) -> str | None:
    """Why a plan cannot be run: an order that makes no sense, techniques that exclude each other,
    or a technique's own reason; None when it can.
    """
    techniques = plan.techniques
    for earlier, later in pairwise(techniques):
        if place(later.kind) < place(earlier.kind):
            return f"{later.name} must come before {earlier.name}: the order is {', '.join(KINDS)}"
    kinds = [technique.kind for technique in techniques]
    for kind in KINDS.values():
        count = kinds.count(kind.name)
        if kind.most is not None and count > kind.most:
            return f"a plan can have one technique of kind {kind.name}, this one has {count}"
    for technique in techniques:
        reason = technique.refuse_beside([other for other in techniques if other is not technique])
        if reason is not None:
            return f"{technique.name}: {reason}"
    for name in kinds:
        if KINDS[name].serial and plan.batch > 1:
            return KINDS[name].serial
    for technique in techniques:
        reason = technique.refuse(plan.case)
        if reason is not None:
            return f"{technique.name}: {reason}"
    return None
