"""A Plan: a case and the ordered techniques to try on it, with a key that is the same on any
machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from core.dataset import Dataset
from core.errors import BadInput
from core.model import Model
from core.target import Target
from core.workload import Workload

if TYPE_CHECKING:
    from core.priorities import Limit


@dataclass(frozen=True)
class Case:
    """Model x Target x Workload; `data` is the user's own, none is the bundled held-out data."""

    model: Model
    target: Target
    workload: Workload
    data: tuple[Dataset, ...] = ()


class Technique(Protocol):
    """Data that can be stored and printed, plus what it does. A technique is a frozen dataclass
    derived from core.techniques.base.Base, which also proposes settings for a case.

    No technique changes what the workload asks for: it changes how that is served.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    title: ClassVar[str]
    trains: ClassVar[bool]

    @property
    def rounds(self) -> bool:
        """Whether it puts matrices into codes, which lose what lies between them."""

    @property
    def calibrates(self) -> bool:
        """Whether applying it reads calibration data."""

    @property
    def training_steps(self) -> int:
        """Optimizer steps that applying it takes; 0 for what does not train."""

    @property
    def sequences(self) -> int:
        """How many requests it serves together at most."""

    def with_steps(self, steps: int) -> Technique:
        """This technique with so many training steps, if it trains."""

    def refuse(self, case: Case) -> str | None:
        """A sentence that says why `case` cannot have this technique, or None."""

    def refuse_beside(self, others: Collection[Technique]) -> str | None:
        """A sentence that says why it cannot be in a plan with `others`, or None."""

    def within(self, limits: Sequence[Limit], stated: Collection[str] = ()) -> Technique:
        """This technique with the study's hard limits in the settings that promise one, except in
        those that the user `stated`."""

    def promise(self) -> Limit | None:
        """The limit that the settings promise to keep, or None."""

    def effect(self, before: Any, case: Case) -> Any:
        """The Effects (core.techniques.effects) of what came before and of this technique."""

    def apply(self, deployment: Any) -> None:
        """Change the loaded model or the way it is run, a core.techniques.deployment.Deployment.
        Imports torch only inside.
        """


def own_fields(technique: Technique | type[Technique]) -> tuple[Field[Any], ...]:
    """The settings that a user may give; a name for settings of another technique fixes some."""
    return tuple(field for field in fields(technique) if field.init)  # type: ignore[arg-type]


def settings(technique: Technique) -> dict[str, Any]:
    """A technique as JSON-ready data: its name and settings; 1 in a float field becomes 1.0."""
    values = {
        field.name: float(value) if field.type in ("float", float) else value
        for field in own_fields(technique)
        for value in (getattr(technique, field.name),)
    }
    return {"name": technique.name, **values}


def label(technique: Technique) -> str:
    """Short human name, as `weight-int4(group_size=32)`.

    The first setting is always shown, others when they are not at their default.
    """
    shown = [
        f"{field.name}={getattr(technique, field.name)}"
        for position, field in enumerate(own_fields(technique))
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
            facts["data"] = sorted(dataset.identity for dataset in self.case.data)
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """`baseline`, or the techniques joined by ` + `."""
        return " + ".join(label(technique) for technique in self.techniques) or "baseline"

    @property
    def batch(self) -> int:
        """How many sequences are served together at most."""
        return max((technique.sequences for technique in self.techniques), default=1)


def parse_setting(text: str) -> tuple[str, dict[str, str]]:
    """Split `NAME:key=value,key=value` of the command line; BadInput names the malformed part."""
    name, _, rest = text.partition(":")
    values: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise BadInput(f"--technique {text!r}: {part!r} is not key=value")
        if key in values:
            raise BadInput(f"--technique {text!r}: {key} is given twice")
        values[key] = value
    return name, values
