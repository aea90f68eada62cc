"""The table of a comparison: value and change in each cell, the rest on hover or under it.

Streamlit's own tables have neither headings that stay nor hover texts, so this one is HTML from a
template that escapes everything; it is the only HTML that pages write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import streamlit as st
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from app.parts import words
from core import format, metrics
from core.ids import distinct
from core.verdict.comparison import Cell, Column, Row, machine_names

# They say how a trial went, not how good its plan is.
DIAGNOSTICS = ("environment", "preparation", "limit")


@dataclass(frozen=True)
class Shown:
    """A cell: its value, the verdict with its change, notes under it, and the rest on hover."""

    text: str
    verdict: str = ""
    tone: str = ""
    notes: tuple[str, ...] = ()
    hover: str = ""


def draw(rows: Sequence[Row], columns: Sequence[Column], details: bool, alt: str) -> None:
    """Draw `rows`, of one kind, with a column a trial; `details` writes under each number what
    else only hovering shows."""
    st.html(page(rows, columns, details, alt))


def page(rows: Sequence[Row], columns: Sequence[Column], details: bool, alt: str) -> str:
    """The table as HTML; all text is escaped."""
    names = distinct({column.trial_id: column.title for column in columns})
    machines = machine_names(columns)
    setting = all(row.kind == "setting" for row in rows)
    return _template().render(
        alt=alt,
        first="Setting" if setting else "Metric",
        heads=[
            {
                "name": names[column.trial_id],
                "notes": [
                    *(["baseline"] if column.is_baseline and column.title != "baseline" else []),
                    *([machines[column.trial_id]] if column.trial_id in machines else []),
                ],
            }
            for column in columns
        ],
        groups=[
            {
                "title": "" if setting else name.capitalize(),
                "rows": [_row(row, details) for row in members],
            }
            for name, members in groupby(rows, key=lambda row: row.group)
        ],
    )


def _row(row: Row, details: bool) -> dict[str, object]:
    if row.kind == "setting":
        cells = [Shown(cell.text) for cell in row.cells]
        return {"label": row.label, "meaning": "", "notes": (), "cells": cells, "setting": True}
    meaning = metrics.metric(row.key).meaning
    # What can never be judged is said once, not in every cell.
    single = all(cell.n <= 1 for cell in row.cells) and any(
        cell.verdict == "too few runs" for cell in row.cells
    )
    judged = bool(row.better) and not single and row.group not in DIAGNOSTICS
    notes = [f"{row.better} is better"] if row.better else []
    notes += ["one reading, not judged"] if single else []
    notes += [meaning] if details else []
    return {
        "label": row.label,
        "meaning": meaning,
        "notes": notes,
        "cells": [_cell(cell, row, judged, details) for cell in row.cells],
        "setting": False,
    }


def _cell(cell: Cell, row: Row, judged: bool, details: bool) -> Shown:
    if cell.value is None:
        why = cell.method or cell.why
        return Shown(cell.text, notes=(why,) if why and details else (), hover=why)
    spread = format.interval(cell.value, cell.low, cell.high, row.unit, row.key)
    facts = [f"95 %: {spread}" if spread else "", f"n {cell.n}" if cell.n else "", cell.origin]
    rest = " · ".join(fact for fact in facts if fact)
    notes = [f"{cell.margin} at the study's margin"] if cell.margin else []
    # A number that was not measured says so without being asked.
    notes += [rest] if details else [cell.origin] if cell.origin not in ("", "measured") else []
    return Shown(
        cell.text,
        _verdict(cell) if judged and cell.verdict != "baseline" else "",
        cell.verdict if cell.verdict in ("better", "worse") else "neutral",
        tuple(notes),
        "\n".join(text for text in (rest, cell.why, cell.margin_why, cell.method) if text),
    )


def _verdict(cell: Cell) -> str:
    text = words.VERDICTS.get(cell.verdict, cell.verdict)
    if cell.change is not None and cell.verdict in ("better", "worse", "within noise"):
        text += f" {format.percent(cell.change)}"
    return text


@lru_cache(maxsize=1)
def _template() -> Template:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("side_by_side.html")
