"""What a store can do, in the words of the core. Two keep it: DuckDB (or PostgreSQL) by SQLAlchemy,
and plain memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.journal.events import Event
from core.journal.journal import Mark
from core.report import Report
from core.study import Study, Trial

# A row by its columns, and rows by their table.
TableRow = dict[str, Any]
TableRows = dict[str, list[TableRow]]


@dataclass(frozen=True)
class StudySummary:
    """A study for a list: no trials, only how many are in which state."""

    id: str
    model_id: str
    target_id: str
    workload_id: str
    preset: str
    created_at: str
    state: str
    reason: str
    trials: int
    ended: int
    failed: int
    who: str = ""


@dataclass(frozen=True)
class TrialProgress:
    """The newest progress of a running trial."""

    trial_id: str
    stage: str
    share: float
    at: str


@dataclass(frozen=True)
class TrialFilter:
    """Which trials a table shows; None or an empty tuple means all."""

    study_id: str | None = None
    model_id: str | None = None
    target_id: str | None = None
    states: tuple[str, ...] = ()
    technique: str | None = None
    text: str = ""


class Store(Protocol):
    """All reads hand out frozen copies; all writes are appends. Safe to call from several threads.

    A trial stands where its latest event says: the highest attempt counts, in it the furthest step
    (queued, started, ended), then the newest event id. Of earlier attempts nothing is shown, but
    all is kept. Events may come in any order; what belongs together is ordered by event id, which
    sorts by time: trials as they were queued, measurements, kernels and notes as they were taken. A
    trial is shown once its trial-queued event is there, a study once its study-created event is.
    StoreError says what cannot be read or written, and why.
    """

    sound: bool
    """False once something that was stored could not be read."""

    read_only: str
    """Why this store can be read and not written, in a sentence; empty when it can."""

    reports_journal: Path | None
    """Where a report is written down before it is stored, so that it can be stored again."""

    def ingest(self, events: Iterable[Event], marks: Iterable[Mark] = ()) -> int:
        """Keep events whose id is new, in one transaction; returns how many were new, once they are
        on the disk. One damaged event (StoreError names it) keeps its whole batch out. `marks` say,
        in the same transaction, how far the journals were read that the events come from."""

    def marks(self) -> dict[tuple[str, str], Mark]:
        """How far every journal was read, by study id and file name."""

    def known(self, event_ids: Iterable[str]) -> set[str]:
        """Which of these events were ingested."""

    def scan(self) -> None:
        """Read everything once; StoreDamaged when something cannot be read."""

    def studies(self, limit: int = 100) -> tuple[StudySummary, ...]:
        """The newest studies first."""

    def study(self, study_id: str) -> Study | None:
        """A study with all trials and their latest attempt's measurements, kernels and notes."""

    def trial(self, trial_id: str) -> Trial | None:
        """One trial, as in study()."""

    def trial_rows(
        self, wanted: TrialFilter, limit: int = 200, offset: int = 0
    ) -> tuple[dict[str, Any], ...]:
        """Flat rows for a table, newest first: id, study_id, position, title, state, reason,
        model_id, target_id, workload_id, created_at, techniques (names), origins (by metric) and
        one key per metric with its value for the workload as it is asked (None when unavailable).
        """

    def count_trials(self, wanted: TrialFilter) -> int:
        """How many trials trial_rows would list without a limit."""

    def progress(self, study_id: str) -> tuple[TrialProgress, ...]:
        """The newest progress event of each trial that is running."""

    def environments_of(self, trial_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The ids of the environments that each trial's latest attempt was measured in, sorted;
        trials without a measurement are left out."""

    def environments_of_studies(self, study_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The ids of the environments that anything of each study was measured in, sorted; studies
        without a measurement are left out."""

    def environment(self, environment_id: str) -> dict[str, Any] | None:
        """The recorded facts of an environment."""

    def save_report(self, report: Report) -> None:
        """Append a report version; StoreError when this id and version is saved already."""

    def reports(self) -> tuple[Report, ...]:
        """The newest version of every report, newest first."""

    def report(self, report_id: str, version: int | None = None) -> Report | None:
        """One report; the newest version when not given."""

    def snapshot(self, target: Path) -> dict[str, int]:
        """Copy everything as it stands between two writes to a new DuckDB file; returns how many
        rows each table has there. Writers wait for the copy, readers do not."""

    def close(self) -> None:
        """Give the file back."""
