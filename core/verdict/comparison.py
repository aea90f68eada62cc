"""What judging gives: the verdicts with their marks, the judgement on one number, and the table of
trials side by side. Types alone: core.verdict.judge judges, core.verdict.compare fills the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNPROJECTED = "not distinguishable by projection"
# Each verdict with its mark: told apart without colour.
MARKS = {
    "better": "▲",
    "worse": "▼",
    "same": "=",
    "within noise": "≈",
    UNPROJECTED: "≈",
    "too few runs": "?",
    "not comparable": "–",
    "baseline": "●",
}
VERDICTS = tuple(MARKS)
ABSENT = "—"


@dataclass(frozen=True)
class Judgement:
    """`ratio` is candidate / baseline, `low` and `high` its 95 % interval; `difference` is
    candidate - baseline in the metric's unit with its own interval, where it was judged by that.

    `why` says how it was judged, or what kept us from a verdict or from judging by the ratio.
    """

    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True)
class Cell:
    """One trial's entry in a row; `value` is None where nothing is known.

    `low` and `high` are the value's 95 % interval; `delta` is value - baseline, `change` is delta /
    baseline (0.1: 10 % more); `ratio` with `ratio_low` and `ratio_high` is value / baseline;
    `verdict` is one of VERDICTS, `why` how it was judged or what kept us from
    one; `margin` says whether the loss stays within the study's margin (core.margin), `margin_why`
    in a sentence; `method` tells how the number came about. Settings have no origin and no verdict.
    """

    trial_id: str
    text: str
    value: Any = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    origin: str = ""
    method: str = ""
    delta: float | None = None
    change: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: str = ""
    why: str = ""
    margin: str = ""
    margin_why: str = ""


@dataclass(frozen=True)
class Row:
    """`kind` is `setting` or `metric`; `better` is `lower`, `higher` or empty."""

    key: str
    label: str
    kind: str
    cells: tuple[Cell, ...]
    differs: bool
    group: str = ""
    unit: str = ""
    better: str = ""


@dataclass(frozen=True)
class Column:
    """A compared trial's heading; `machine` is what it ran on, empty when that is not known."""

    trial_id: str
    study_id: str
    title: str
    state: str
    reason: str
    is_baseline: bool
    machine: str = ""


def machine_names(columns: Sequence[Column]) -> dict[str, str]:
    """The machine of each compared trial of which it is known, where they are of several; empty
    where there is nothing to tell apart."""
    named = {column.trial_id: column.machine for column in columns if column.machine}
    return named if len(set(named.values())) > 1 else {}


@dataclass(frozen=True)
class Comparison:
    """Cells of every row stand in the order of `columns`."""

    baseline_id: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()

    def row(self, key: str) -> Row | None:
        """The row with this key, or None."""
        return next((row for row in self.rows if row.key == key), None)

    def settings(self) -> tuple[Row, ...]:
        """Rows of what was configured."""
        return tuple(row for row in self.rows if row.kind == "setting")

    def metrics(self) -> tuple[Row, ...]:
        """Rows of what came out."""
        return tuple(row for row in self.rows if row.kind == "metric")
