"""A Plan: a case and the ordered techniques to try on it, with a key that is the same on any
machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from core.dataset import Dataset
from core.errors import BadInput
from core.model import Model
from core.target import Target
from core.workload import Workload

if TYPE_CHECKING:
    from core.priorities import Limit

# The order in which kinds act: a smaller model, then cheaper weights, then what makes up for their
# loss, then a cheaper way to run.
KINDS = ("prune", "distill", "quantize", "recover", "cache", "decode", "batch")


@dataclass(frozen=True)
class Case:
    """Model x Target x Workload; `data` is the user's own, none is the bundled held-out data."""

    model: Model
    target: Target
    workload: Workload
    data: tuple[Dataset, ...] = ()


class Technique(Protocol):
    """Data that can be stored and printed, plus what it does. A technique is a frozen dataclass.

    `candidates` proposes settings worth trying; `refuse` says in a sentence why a case cannot have
    it, or None; `apply` changes a loaded Deployment (core.techniques.deployment), importing torch
    only inside. No technique changes what the workload asks for: it changes how that is served.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    title: ClassVar[str]

    @classmethod
    def candidates(cls, case: Case) -> tuple[Technique, ...]:
        """Settings that are worth measuring for `case`, the best guess first."""

    def refuse(self, case: Case) -> str | None:
        """A sentence that says why `case` cannot have this technique, or None."""

    def within(self, limits: Sequence[Limit], stated: Collection[str] = ()) -> Technique:
        """This technique with the study's hard limits in the settings that promise one, except in
        those that the user `stated`."""

    def promise(self) -> Limit | None:
        """The limit that the settings promise to keep, or None."""

    def apply(self, deployment: Any) -> None:
        """Change the loaded model or the way it is run."""


def settings(technique: Technique) -> dict[str, Any]:
    """A technique as JSON-ready data: its name and every field; 1 in a float field becomes 1.0."""
    values = {
        field.name: float(value) if field.type in ("float", float) else value
        for field in fields(technique)  # type: ignore[arg-type]
        for value in (getattr(technique, field.name),)
    }
    return {"name": technique.name, **values}


def label(technique: Technique) -> str:
    """Short human name, as `weight-int4(group_size=32)`.

    The first field is always shown, others when they are not at their default.
    """
    shown = [
        f"{field.name}={getattr(technique, field.name)}"
        for position, field in enumerate(fields(technique))  # type: ignore[arg-type]
        if position == 0 or getattr(technique, field.name) != field.default
    ]
    return technique.name + (f"({', '.join(shown)})" if shown else "")


@dataclass(frozen=True)
class Plan:
    """A case and ordered techniques; no techniques is the baseline."""

    case: Case
    techniques: tuple[Technique, ...] = ()
    seed: int = 0

    @property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON of what determines the
        outcome.
        """
        facts = {
            "model": [self.case.model.id, self.case.model.revision],
            "target": self.case.target.id,
            "workload": [
                self.case.workload.id,
                self.case.workload.prompt_tokens,
                self.case.workload.output_tokens,
                self.case.workload.concurrency,
            ],
            "techniques": [settings(technique) for technique in self.techniques],
            "seed": self.seed,
        }
        traffic = self.case.workload.trace_digest or self.case.workload.arrival_per_s
        if traffic:
            facts["arrivals"] = [traffic]
        if self.case.data:
            facts["data"] = sorted(one.identity for one in self.case.data)
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """`baseline`, or the techniques joined by ` + `."""
        return " + ".join(label(technique) for technique in self.techniques) or "baseline"

    @property
    def batch(self) -> int:
        """How many sequences are served together at most: the size of its batching, else 1."""
        sizes = (getattr(one, "size", 1) for one in self.techniques if one.kind == "batch")
        return max(sizes, default=1)

    def refuse(self) -> str | None:
        """Why this plan cannot be run: an order that makes no sense, or a technique's own
        reason.
        """
        ranks = [KINDS.index(technique.kind) for technique in self.techniques]
        for (before, earlier), (after, later) in zip(
            zip(ranks, self.techniques, strict=True),
            list(zip(ranks, self.techniques, strict=True))[1:],
            strict=False,
        ):
            if after < before:
                return (
                    f"{later.name} must come before {earlier.name}: the order is {', '.join(KINDS)}"
                )
        once = [technique.kind for technique in self.techniques]
        for kind in ("quantize", "recover", "cache", "decode", "batch"):
            if once.count(kind) > 1:
                return (
                    f"a plan can have one technique of kind {kind}, this one has {once.count(kind)}"
                )
        based = [one.name for one in self.techniques if one.kind == "recover" and _base(one)]
        if based and "quantize" in once:
            return f"{based[0]}: the plan quantizes already, so there is nothing to do for base"
        if "decode" in once and self.batch > 1:
            return (
                "speculative decoding verifies one sequence at a time: it cannot be stacked with a"
                " batch above 1"
            )
        for technique in self.techniques:
            reason = technique.refuse(self.case)
            if reason is not None:
                return f"{technique.name}: {reason}"
        return None


def _base(technique: Technique) -> str:
    """The format that a technique would round to by itself, when it names one."""
    return str(getattr(technique, "base", ""))


def parse_setting(text: str) -> tuple[str, dict[str, str]]:
    """Split `NAME:key=value,key=value` of the command line; BadInput names the malformed part."""
    name, _, rest = text.partition(":")
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise BadInput(f"--technique {text!r}: {part!r} is not key=value")
        if key in given:
            raise BadInput(f"--technique {text!r}: {key} is given twice")
        given[key] = value
    return name, given
