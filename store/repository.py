"""The store over SQLAlchemy: appends under one lock with retries, reads in one snapshot each."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, exc, text
from sqlalchemy.engine import URL

from core.errors import StoreDamaged, StoreError
from core.journal.events import Event, ReportSaved
from core.journal.journal import Journal, Mark
from core.report import Report
from core.study import Study, Trial
from store import assemble, bulk, engine, queries, tables
from store.copies import snapshot
from store.health import check
from store.health import marks as journal_marks
from store.health.clean import clean
from store.interface import StudySummary, TableRow, TableRows, TrialFilter, TrialProgress
from store.place import name_of, why_read_only
from store.rows import by_id, cleaned, report_row, rows_of

_TRIES = 12
Result = TypeVar("Result")


class SqlStore:
    """See store.interface.Store. Every thread works on a connection of its own, taken from the
    engine's pool.
    """

    def __init__(self, place: Path | URL, opened: Engine) -> None:
        self._place = place
        self._engine = opened
        self._writing = threading.Lock()
        self._closed = False
        self.sound = True
        self.read_only = why_read_only(place)
        self.reports_journal: Path | None = None

    def ingest(self, events: Iterable[Event], marks: Iterable[Mark] = ()) -> int:
        """See store.interface.Store."""
        events_by_id, read = by_id(events), tuple(marks)
        if not events_by_id and not read:
            return 0
        self._refuse_to_write()

        def write(connection: Connection) -> int:
            known = bulk.known_ids(connection, events_by_id)
            new = [event for key, event in events_by_id.items() if key not in known]
            _append(connection, rows_of(new))
            journal_marks.keep(connection, journal_marks.owner(self._place), read)
            return len(new)

        return self._write(write)

    def marks(self) -> dict[tuple[str, str], Mark]:
        """See store.interface.Store."""
        with self._read() as connection:
            return journal_marks.kept(connection, journal_marks.owner(self._place))

    def known(self, event_ids: Iterable[str]) -> set[str]:
        """See store.interface.Store."""
        with self._read() as connection:
            return bulk.known_ids(connection, event_ids)

    def scan(self) -> None:
        """See store.interface.Store."""
        with self._read() as connection:
            journal_marks.scan(connection)

    def studies(self, limit: int = 100) -> tuple[StudySummary, ...]:
        """See store.interface.Store."""
        with self._read() as connection:
            return queries.summaries(connection, max(0, limit))

    def study(self, study_id: str) -> Study | None:
        """See store.interface.Store."""
        with self._read() as connection:
            rows = queries.study_rows(connection, clean(study_id))
        return assemble.study_of(rows) if rows["studies"] else None

    def trial(self, trial_id: str) -> Trial | None:
        """See store.interface.Store."""
        with self._read() as connection:
            rows = queries.trial_parts(connection, clean(trial_id))
        return next(iter(assemble.trials_of(rows)), None)

    def trial_rows(
        self, wanted: TrialFilter, limit: int = 200, offset: int = 0
    ) -> tuple[dict[str, Any], ...]:
        """See store.interface.Store."""
        with self._read() as connection:
            return queries.trial_table(connection, cleaned(wanted), max(0, limit), max(0, offset))

    def count_trials(self, wanted: TrialFilter) -> int:
        """See store.interface.Store."""
        with self._read() as connection:
            return queries.count(connection, cleaned(wanted))

    def progress(self, study_id: str) -> tuple[TrialProgress, ...]:
        """See store.interface.Store."""
        with self._read() as connection:
            return queries.progress(connection, clean(study_id))

    def environments_of(self, trial_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """See store.interface.Store."""
        with self._read() as connection:
            return queries.environments_of(connection, [clean(trial_id) for trial_id in trial_ids])

    def environments_of_studies(self, study_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """See store.interface.Store."""
        ids = [clean(study_id) for study_id in study_ids]
        with self._read() as connection:
            return queries.environments_of_studies(connection, ids)

    def environment(self, environment_id: str) -> dict[str, Any] | None:
        """See store.interface.Store."""
        with self._read() as connection:
            row = queries.environment(connection, clean(environment_id))
        return None if row is None else assemble.facts_of(row)

    def save_report(self, report: Report) -> None:
        """See store.interface.Store."""
        self._refuse_to_write()
        row = report_row(report)
        saved = ReportSaved(report).event(row["study_id"], who=report.who)
        written: list[str] = []

        def write(connection: Connection) -> None:
            if _saved(connection, row):
                raise StoreError(assemble.report_exists(report))
            if self.reports_journal is not None and not written:
                with Journal(self.reports_journal, "") as journal:
                    written.append(journal.append(saved))
                    check.note_now(self.reports_journal, journal.mark())
            for name, rows in rows_of([saved]).items():
                bulk.append(connection, tables.metadata.tables[name], rows)

        self._write(write)

    def reports(self) -> tuple[Report, ...]:
        """See store.interface.Store."""
        with self._read() as connection:
            rows = queries.reports(connection)
        return tuple(assemble.report_of(row) for row in rows)

    def report(self, report_id: str, version: int | None = None) -> Report | None:
        """See store.interface.Store."""
        with self._read() as connection:
            rows = queries.reports(connection, clean(report_id), version)
        return assemble.report_of(rows[0]) if rows else None

    def snapshot(self, target: Path) -> dict[str, int]:
        """See store.interface.Store."""
        if isinstance(self._place, Path):
            with self._writing, self._read() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                if not self.read_only:
                    connection.execute(text("checkpoint"))
                snapshot.copy_file(self._place, target)
        else:
            with self._read() as connection:
                snapshot.copy_rows(connection, target)
        return snapshot.settle(target)

    def close(self) -> None:
        """See store.interface.Store."""
        with self._writing:
            self._closed = True
            self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        self._refuse_when_closed()
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.DBAPIError as error:
            raise self._failure(error) from None

    def _failure(self, error: exc.DBAPIError) -> StoreError:
        failure = engine.failure(self._place, error)
        self.sound = self.sound and not isinstance(failure, StoreDamaged)
        return failure

    def _write(self, write: Callable[[Connection], Result]) -> Result:
        """Run `write` in a transaction; what it returns is on the disk. Conflicts with other
        writers are tried again: a lost race shows as OperationalError or, for the same key, as
        IntegrityError.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with self._writing:
                    self._refuse_when_closed()
                    with self._engine.begin() as connection:
                        return write(connection)
            except exc.DBAPIError as error:
                if attempt == _TRIES or not _is_conflict(error):
                    raise self._failure(error) from None
            time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 7)))
        raise AssertionError("unreachable")

    def _refuse_to_write(self) -> None:
        if self.read_only:
            raise StoreError(self.read_only)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreError(f"the store {name_of(self._place)} was closed: open it again")


def _append(connection: Connection, rows_by_table: TableRows) -> None:
    for name, rows in rows_by_table.items():
        new = _not_saved(connection, rows) if name == "reports" else rows
        bulk.append(connection, tables.metadata.tables[name], new)


def _saved(connection: Connection, row: TableRow) -> bool:
    return bool(queries.reports(connection, row["report_id"], row["version"]))


def _not_saved(connection: Connection, rows: Iterable[TableRow]) -> list[TableRow]:
    newest = {(row["report_id"], row["version"]): row for row in rows}
    return [row for row in newest.values() if not _saved(connection, row)]


def _is_conflict(error: exc.DBAPIError) -> bool:
    return isinstance(error, exc.IntegrityError) or type(error.orig).__name__ in (
        "TransactionException",
        "SerializationFailure",
        "DeadlockDetected",
    )
