"""Trials whose target is the local GPU, run in this process: what tests of a real one and of a
pretended one share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.catalogue import models
from core.measure import trial
from core.measurement import Measurement
from core.plan import Case, Plan
from core.study import KernelCalls
from core.target import Target
from core.techniques import parse
from core.workload import Workload

TARGET = Target(
    "local", "This machine: NVIDIA H200", "cuda", "local", 141 * 10**9, None, (), local=True
)
SHORT = Workload("short", "Short", "text", 40, 4)


@dataclass
class Told:
    """What a trial said: `rows` under no condition by metric, `parts` of its memory, `waits` for
    the device by stage.
    """

    rows: dict[str, Measurement] = field(default_factory=dict)
    parts: dict[str, Measurement] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    kernels: tuple[KernelCalls, ...] = ()
    waits: dict[str, list[str]] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """The number; AssertionError where there is none."""
        value = self.rows[metric].value
        assert value is not None, self.rows[metric].method
        return value


def case(model: str, workload: Workload = SHORT) -> Case:
    """The model on the local GPU."""
    return Case(models.resolve(model), TARGET, workload)


def plan(text: str, model: str = "pycode-small", workload: Workload = SHORT) -> Plan:
    """The techniques of `text`, spelled as on the command line, with spaces between them."""
    return Plan(case(model, workload), tuple(map(parse, text.split())))


def run(asked: Plan, waits: Sequence[str] = ()) -> Told:
    """Run a trial under the preset `quick`; `waits` grows meanwhile on a pretended GPU."""
    told = Told()
    begun: dict[str, int] = {}

    def emit(kind: str, **body: Any) -> None:
        if kind == "measurement":
            row: Measurement = body["measurement"]
            if not row.condition:
                told.rows[row.metric] = row
            elif row.metric == "memory_bytes":
                told.parts[str(row.condition)] = row
        elif kind == "progress":
            begun.setdefault(body["stage"], len(waits))
        elif kind == "note":
            told.notes.append(body["text"])
        elif kind == "kernels":
            told.kernels = body["kernels"]

    trial.run_trial(asked, "quick", "env-1", emit)
    ends = [*list(begun.values())[1:], len(waits)]
    for (stage, begin), end in zip(begun.items(), ends, strict=True):
        told.waits[stage] = list(waits[begin:end])
    return told
