"""What each technique changes about bytes, work and batch, read from its own fields. Predicts no
time.

A technique without a line in EFFECTS is unknown: no effect is claimed for it and the interval is
widened by whoever predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from core.model import DecoderShape
from core.plan import Case, Plan, Technique, settings

# Pruned widths stay multiples of this, as in core.techniques.prune.
MULTIPLE = 32


@dataclass(frozen=True)
class Effects:
    """A plan's effects together.

    `bits` per weight of the matrices and `row_bytes` per output row and `group_bytes` per group of
    `group` weights for scales and zeros; `packed` says that the head got a matrix of its own;
    `sparsity` is the share of MLP channels removed; `draft` proposes `draft_tokens` a step;
    `unknown` names the techniques whose effect nobody stated.
    """

    bits: float
    row_bytes: float = 0.0
    group: int = 0
    group_bytes: float = 0.0
    packed: bool = False
    sparsity: tuple[float, ...] = ()
    batch: int = 1
    draft: str | None = None
    draft_tokens: int = 0
    unknown: tuple[str, ...] = ()

    def matrix_bytes(self, weights: float, rows: float) -> float:
        """Bytes of matrices with so many weights and output rows, scales included."""
        groups = weights / self.group * self.group_bytes if self.group else 0.0
        return weights * self.bits / 8 + rows * self.row_bytes + groups

    def shape(self, shape: DecoderShape) -> DecoderShape:
        """The decoder's shape after pruning."""
        width = shape.intermediate
        for share in self.sparsity:
            wanted = round(width * (1 - share) / MULTIPLE) * MULTIPLE
            width = max(MULTIPLE, min(wanted, (width - 1) // MULTIPLE * MULTIPLE))
        return replace(shape, intermediate=width)


def effects(plan: Plan) -> Effects:
    """The effects of all of the plan's techniques, applied in order."""
    found = Effects(bits=float(plan.case.model.bits))
    for technique in plan.techniques:
        change = EFFECTS.get(technique.name)
        if change is None:
            found = replace(found, unknown=(*found.unknown, technique.name))
        else:
            found = change(found, technique, plan.case)
    return found


def _int8(before: Effects, technique: Technique, case: Case) -> Effects:
    """One byte a weight and a 16-bit scale per output row."""
    return replace(before, bits=8.0, row_bytes=2.0, packed=True)


def _int4(before: Effects, technique: Technique, case: Case) -> Effects:
    """Half a byte a weight, a 16-bit scale and a 16-bit zero per group."""
    size = int(_field(technique, "group_size"))
    return replace(before, bits=4.0, group=size, group_bytes=4.0, packed=True)


def _prune(before: Effects, technique: Technique, case: Case) -> Effects:
    """Fewer MLP channels in every layer."""
    return replace(before, sparsity=(*before.sparsity, float(_field(technique, "sparsity"))))


def _nothing(before: Effects, technique: Technique, case: Case) -> Effects:
    """Other values in the same tensors: neither bytes nor work change."""
    return before


def _speculative(before: Effects, technique: Technique, case: Case) -> Effects:
    """A draft model beside the model, `tokens` proposals a step."""
    chosen = _field(technique, "draft")
    name = getattr(technique, "draft_of", lambda case: chosen)(case)
    return replace(before, draft=name, draft_tokens=int(_field(technique, "tokens")))


def _batch(before: Effects, technique: Technique, case: Case) -> Effects:
    """So many sequences share every reading of the weights."""
    return replace(before, batch=int(_field(technique, "size")))


def _field(technique: Technique, name: str) -> Any:
    return settings(technique)[name]


EFFECTS: dict[str, Callable[[Effects, Technique, Case], Effects]] = {
    "weight-int8": _int8,
    "weight-int4": _int4,
    "prune-mlp": _prune,
    "distill-soft": _nothing,
    "speculative": _speculative,
    "static-batch": _batch,
}
