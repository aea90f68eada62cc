"""Rows -> frozen studies and trials. Pure; knows no database. The inverse of rows.py, and the rule
of the latest attempt.

Ids of events sort by time, so that the order of ingest does not matter: positions, states and
measurements follow the ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from core.errors import BadInput, StoreError
from core.journal import codec
from core.plan import Plan
from core.report import Report
from core.study import ENDED, KernelCalls, Study, Trial
from store.interface import TableRow, TableRows
from store.measurement_rows import measurement_of


def latest_state(states: Iterable[TableRow]) -> TableRow:
    """The row of trial_states that says how a trial stands: highest attempt, furthest step, newest
    event.
    """
    return max(states, key=lambda row: (row["attempt"], row["step"], row["event_id"]))


def first_of_each(rows: Iterable[TableRow], key: str) -> dict[str, TableRow]:
    """The earliest row of every value of `key`, in the order of their events."""
    firsts: dict[str, TableRow] = {}
    for row in sorted(rows, key=lambda row: row["event_id"]):
        firsts.setdefault(row[key], row)
    return firsts


def study_of(rows: TableRows) -> Study:
    """One study from all its rows; StoreError names what is damaged."""
    first = min(rows["studies"], key=lambda row: row["event_id"])
    name = f"study {first['study_id']}"
    study = _read(name, _load, first["document"])
    if not isinstance(study, Study):
        raise StoreError(_damaged(name, "its document is no study"))
    if not rows["study_states"]:
        raise StoreError(_damaged(name, "it has no state"))
    state = max(rows["study_states"], key=lambda row: row["event_id"])
    return replace(
        study,
        state=state["state"],
        reason=state["reason"],
        trials=trials_of(rows),
        who=_authors(rows).get(first["event_id"], ""),
    )


def trials_of(rows: TableRows) -> tuple[Trial, ...]:
    """The trials whose rows these are, in the order they were queued, with their latest
    attempts only.
    """
    grouped = {
        table: _by_trial(rows.get(table, ()))
        for table in ("trial_states", "measurements", "kernel_calls", "notes")
    }
    authors = _authors(rows)
    return tuple(
        _trial(row, authors, *(grouped[table].get(trial_id, []) for table in grouped))
        for trial_id, row in first_of_each(rows.get("trials", ()), "trial_id").items()
    )


def _authors(rows: TableRows) -> dict[str, str]:
    """Who did what each event says, where somebody is known."""
    return {row["id"]: row["who"] for row in rows.get("events", ()) if row["who"]}


def _trial(
    row: TableRow,
    authors: dict[str, str],
    states: list[TableRow],
    measurements: list[TableRow],
    kernels: list[TableRow],
    notes: list[TableRow],
) -> Trial:
    name = f"trial {row['trial_id']} of study {row['study_id']}"
    if not states:
        raise StoreError(_damaged(name, "it has no state"))
    state = latest_state(states)
    attempt = state["attempt"]
    plan = _read(name, _load, row["plan"])
    if not isinstance(plan, Plan):
        raise StoreError(_damaged(name, "its plan is no plan"))
    steps = _in_order(states, attempt)
    started = [step for step in steps if step["started_at"]]
    return Trial(
        id=row["trial_id"],
        study_id=row["study_id"],
        plan=plan,
        state=state["state"],
        reason=state["reason"],
        attempt=attempt,
        started_at=started[-1]["started_at"] if started else "",
        ended_at=state["ended_at"] if state["state"] in ENDED else "",
        measurements=tuple(
            _read(name, measurement_of, taken) for taken in _in_order(measurements, attempt)
        ),
        kernels=tuple(
            KernelCalls(run["op"], run["name"], run["calls"]) for run in _in_order(kernels, attempt)
        ),
        notes=tuple(note["text"] for note in _in_order(notes, attempt)),
        who=authors.get((started[-1] if started else steps[0])["event_id"], ""),
    )


def report_exists(report: Report) -> str:
    """The sentence for a version that is there already."""
    following = report.version + 1
    return (
        f"report {report.id} version {report.version} is saved already; "
        f"save it as version {following}"
    )


def facts_of(row: TableRow) -> dict[str, Any]:
    """The facts of a row of `environments`; StoreError names it when it is damaged."""
    name = f"environment {row['environment_id']}"
    facts = _read(name, json.loads, row["facts"])
    if not isinstance(facts, dict):
        raise StoreError(_damaged(name, "its facts are no object"))
    return facts


def report_of(row: TableRow) -> Report:
    """The Report of a row; StoreError names it when it is damaged."""
    name = f"report {row['report_id']} version {row['version']}"
    report = _read(name, _load_report, row["document"])
    if not isinstance(report, Report):
        raise StoreError(_damaged(name, "its document is no report"))
    return report


# Trials of one study share their case: the same text need not be read twice. What is read is
# frozen, so it can be shared.
@lru_cache(maxsize=4096)
def _load(text: str) -> Any:
    return codec.loads(text)


# A report's version never changes, and a list of reports reads every document again.
@lru_cache(maxsize=64)
def _load_report(text: str) -> Any:
    return codec.loads(text)


def _read(name: str, reader: Callable[[Any], Any], data: Any) -> Any:
    try:
        return reader(data)
    except (BadInput, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(_damaged(name, str(error))) from None


def _damaged(name: str, why: str) -> str:
    return f"the stored {name} cannot be read: {why}; its journal, if kept, holds it too"


def _by_trial(rows: Iterable[TableRow]) -> dict[str, list[TableRow]]:
    grouped: dict[str, list[TableRow]] = {}
    for row in rows:
        grouped.setdefault(row["trial_id"], []).append(row)
    return grouped


def _in_order(rows: Iterable[TableRow], attempt: int) -> list[TableRow]:
    wanted = [row for row in rows if row["attempt"] == attempt]
    return sorted(wanted, key=lambda row: (row["event_id"], row.get("position", 0)))
