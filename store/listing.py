"""Rows -> the flat lines of lists and tables. Pure; knows no database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.metrics import METRICS
from core.study import ENDED
from store.interface import StudySummary, TableRow, TrialProgress


def summary_of(
    study: TableRow, state: TableRow | None, trial_states: Iterable[str], who: str | None
) -> StudySummary:
    """A study for a list, from its rows, the states of its trials and its author."""
    states = list(trial_states)
    return StudySummary(
        study["study_id"],
        study["model_id"],
        study["target_id"],
        study["workload_id"],
        study["preset"],
        study["created_at"],
        "queued" if state is None else state["state"],
        "its state is lost: the stored study is damaged" if state is None else state["reason"],
        len(states),
        sum(state in ENDED for state in states),
        states.count("failed"),
        who or "",
    )


def table_row(
    trial: TableRow,
    position: int,
    state: TableRow,
    measured: Iterable[tuple[str, float | None, str]],
) -> dict[str, Any]:
    """A flat row for a table of trials; `measured` are metrics with their values and origins, of
    the latest attempt and of no condition, in the order of their events.
    """
    row: dict[str, Any] = {
        "id": trial["trial_id"],
        "study_id": trial["study_id"],
        "position": position,
        "title": trial["title"],
        "state": state["state"],
        "reason": state["reason"],
        "model_id": trial["model_id"],
        "target_id": trial["target_id"],
        "workload_id": trial["workload_id"],
        "created_at": trial["happened_at"].isoformat(timespec="milliseconds"),
        "techniques": tuple(filter(None, trial["techniques"].split(","))),
    }
    values: dict[str, float | None] = {}
    origins: dict[str, str] = {}
    for metric, value, origin in measured:
        # The first of a name counts, as in Trial.metric.
        values.setdefault(metric, value)
        origins.setdefault(metric, origin)
    row["origins"] = origins
    return row | dict.fromkeys(metric.name for metric in METRICS) | values | row


def progress_of(row: TableRow) -> TrialProgress:
    """The TrialProgress of a row of `progress`."""
    return TrialProgress(
        row["trial_id"],
        row["stage"],
        row["share"],
        row["happened_at"].isoformat(timespec="milliseconds"),
    )
