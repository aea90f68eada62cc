"""The store in plain memory: the twin that passes the same tests. Keeps nothing after the process
ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.errors import StoreError
from core.journal.events import Event
from core.journal.journal import Mark
from core.report import Report
from core.study import Study, Trial
from store import assemble, listing
from store.health.clean import clean
from store.interface import StudySummary, TableRow, TableRows, TrialFilter, TrialProgress
from store.rows import by_id, cleaned, report_row, rows_of


class MemoryStore:
    """Rows in lists, read by loops: slow and obviously right."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.sound = True
        self.read_only = ""
        self.reports_journal: Path | None = None
        self._rows: TableRows = {}
        self._ids: set[str] = set()
        self._marks: dict[tuple[str, str], Mark] = {}
        self._reports: list[Report] = []

    def ingest(self, events: Iterable[Event], marks: Iterable[Mark] = ()) -> int:
        """See store.interface.Store."""
        with self._lock:
            new = {key: event for key, event in by_id(events).items() if key not in self._ids}
            tables = rows_of(new.values())
            reports = tables.pop("reports", ())
            newest = {(row["report_id"], row["version"]): row for row in reports}
            for row in newest.values():
                self._keep_report(assemble.report_of(row))
            self._ids.update(new)
            for table, rows in tables.items():
                self._rows.setdefault(table, []).extend(rows)
            self._marks |= {mark.key: mark for mark in marks}
            return len(new)

    def marks(self) -> dict[tuple[str, str], Mark]:
        """See store.interface.Store."""
        with self._lock:
            return dict(self._marks)

    def known(self, event_ids: Iterable[str]) -> set[str]:
        """See store.interface.Store."""
        with self._lock:
            return self._ids.intersection(event_ids)

    def scan(self) -> None:
        """See store.interface.Store."""

    def studies(self, limit: int = 100) -> tuple[StudySummary, ...]:
        """See store.interface.Store."""
        with self._lock:
            firsts = assemble.first_of_each(self._table("studies"), "study_id")
            newest = list(reversed(firsts.values()))[: max(0, limit)]
            return tuple(self._summary(study) for study in newest)

    def study(self, study_id: str) -> Study | None:
        """See store.interface.Store."""
        with self._lock:
            rows = self._where("study_id", clean(study_id))
            return assemble.study_of(rows) if rows.get("studies") else None

    def trial(self, trial_id: str) -> Trial | None:
        """See store.interface.Store."""
        with self._lock:
            return next(iter(assemble.trials_of(self._where("trial_id", clean(trial_id)))), None)

    def trial_rows(
        self, wanted: TrialFilter, limit: int = 200, offset: int = 0
    ) -> tuple[dict[str, Any], ...]:
        """See store.interface.Store."""
        with self._lock:
            return tuple(self._wanted(cleaned(wanted))[max(0, offset) :][: max(0, limit)])

    def count_trials(self, wanted: TrialFilter) -> int:
        """See store.interface.Store."""
        with self._lock:
            return len(self._wanted(cleaned(wanted)))

    def progress(self, study_id: str) -> tuple[TrialProgress, ...]:
        """See store.interface.Store."""
        with self._lock:
            rows = self._where("study_id", clean(study_id))
            newest: dict[str, TableRow] = {}
            for row in sorted(rows.get("progress", ()), key=lambda row: row["event_id"]):
                state = self._state(row["trial_id"])
                if (
                    state is not None
                    and state["state"] == "running"
                    and state["attempt"] == row["attempt"]
                ):
                    newest[row["trial_id"]] = row
            return tuple(listing.progress_of(newest[trial_id]) for trial_id in sorted(newest))

    def environments_of(self, trial_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """See store.interface.Store."""
        with self._lock:
            states = {clean(trial_id): self._state(clean(trial_id)) for trial_id in trial_ids}
            environments: dict[str, set[str]] = {}
            for row in self._table("measurements"):
                state = states.get(row["trial_id"])
                if state and row["attempt"] == state["attempt"] and row["environment_id"]:
                    environments.setdefault(row["trial_id"], set()).add(row["environment_id"])
            return {
                environment: tuple(sorted(environments[environment]))
                for environment in sorted(environments)
            }

    def environments_of_studies(self, study_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """See store.interface.Store."""
        with self._lock:
            wanted = {clean(study_id) for study_id in study_ids}
            environments: dict[str, set[str]] = {}
            for row in self._table("measurements"):
                if row["study_id"] in wanted and row["environment_id"]:
                    environments.setdefault(row["study_id"], set()).add(row["environment_id"])
            return {
                study_id: tuple(sorted(environments[study_id])) for study_id in sorted(environments)
            }

    def environment(self, environment_id: str) -> dict[str, Any] | None:
        """See store.interface.Store."""
        with self._lock:
            known = assemble.first_of_each(self._table("environments"), "environment_id")
            row = known.get(clean(environment_id))
            return None if row is None else assemble.facts_of(row)

    def save_report(self, report: Report) -> None:
        """See store.interface.Store."""
        kept = assemble.report_of(report_row(report))
        with self._lock:
            if not self._keep_report(kept):
                raise StoreError(assemble.report_exists(report))

    def reports(self) -> tuple[Report, ...]:
        """See store.interface.Store."""
        with self._lock:
            newest: dict[str, Report] = {}
            for report in sorted(self._reports, key=lambda report: report.version):
                newest[report.id] = report
            return tuple(
                sorted(
                    newest.values(), key=lambda report: (report.created_at, report.id), reverse=True
                )
            )

    def report(self, report_id: str, version: int | None = None) -> Report | None:
        """See store.interface.Store."""
        with self._lock:
            versions = [
                report
                for report in self._reports
                if report.id == clean(report_id) and version in (None, report.version)
            ]
            return max(versions, key=lambda report: report.version, default=None)

    def snapshot(self, target: Path) -> dict[str, int]:
        """See store.interface.Store."""
        raise StoreError("a store in memory keeps nothing: there is nothing to copy")

    def close(self) -> None:
        """See store.interface.Store."""

    def _keep_report(self, report: Report) -> bool:
        same = (
            (stored.id, stored.version) == (report.id, report.version) for stored in self._reports
        )
        if any(same):
            return False
        self._reports.append(report)
        return True

    def _table(self, name: str) -> list[TableRow]:
        return self._rows.get(name, [])

    def _where(self, key: str, value: str) -> TableRows:
        return {
            table: [row for row in rows if row.get(key) == value]
            for table, rows in self._rows.items()
        }

    def _state(self, trial_id: str) -> TableRow | None:
        states = [row for row in self._table("trial_states") if row["trial_id"] == trial_id]
        return assemble.latest_state(states) if states else None

    def _summary(self, study: TableRow) -> StudySummary:
        rows = self._where("study_id", study["study_id"])
        state = max(rows["study_states"], key=lambda row: row["event_id"])
        trials = assemble.first_of_each(rows.get("trials", ()), "trial_id")
        states = [self._state(trial_id) for trial_id in trials]
        return listing.summary_of(
            study, state, [row["state"] for row in states if row is not None], self._who(study)
        )

    def _who(self, row: TableRow) -> str | None:
        ids = {event["id"]: event for event in self._table("events")}
        who: str | None = ids[row["event_id"]]["who"]
        return who

    def _wanted(self, wanted: TrialFilter) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        positions: dict[str, int] = {}
        for trial in assemble.first_of_each(self._table("trials"), "trial_id").values():
            position = positions[trial["study_id"]] = positions.get(trial["study_id"], -1) + 1
            state = self._state(trial["trial_id"])
            if state is None or not _matches(wanted, trial, state):
                continue
            measurements = [
                row
                for row in self._table("measurements")
                if row["trial_id"] == trial["trial_id"]
                and row["attempt"] == state["attempt"]
                and not row["condition"]
            ]
            measurements.sort(key=lambda row: (row["event_id"], row["position"]))
            told = [(row["metric"], row["value"], row["origin"]) for row in measurements]
            lines.append(listing.table_row(trial, position, state, told))
        return lines[::-1]


def _matches(wanted: TrialFilter, trial: TableRow, state: TableRow) -> bool:
    return (
        all(
            value is None or trial[key] == value
            for key, value in (
                ("study_id", wanted.study_id),
                ("model_id", wanted.model_id),
                ("target_id", wanted.target_id),
            )
        )
        and (not wanted.states or state["state"] in wanted.states)
        and (wanted.technique is None or f",{wanted.technique}," in trial["techniques"])
        and wanted.text in trial["searchable"]
    )
