"""The reads, as portable SQL over tables.py. Owns which rows are fetched; what they become is said
in assemble.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Subquery, Table, func, select

from store import listing, tables
from store.interface import StudySummary, TableRow, TableRows, TrialFilter, TrialProgress

_OF_A_TRIAL = (
    tables.trials,
    tables.trial_states,
    tables.measurements,
    tables.kernel_calls,
    tables.notes,
)
_OF_A_STUDY = (tables.studies, tables.study_states, *_OF_A_TRIAL)


def study_rows(connection: Connection, study_id: str) -> TableRows:
    """Everything that is stored of one study."""
    rows = {table.name: _where(connection, table, "study_id", study_id) for table in _OF_A_STUDY}
    return rows | {"events": authors(connection, (*rows["studies"], *rows["trial_states"]))}


def trial_parts(connection: Connection, trial_id: str) -> TableRows:
    """Everything that is stored of one trial."""
    rows = {table.name: _where(connection, table, "trial_id", trial_id) for table in _OF_A_TRIAL}
    return rows | {"events": authors(connection, rows["trial_states"])}


def authors(connection: Connection, rows: Iterable[TableRow]) -> list[TableRow]:
    """Id and author of the events that `rows` were made from."""
    event = tables.events.c
    ids = [row["event_id"] for row in rows]
    return _fetch(connection, select(event.id, event.who).where(event.id.in_(ids)))


def summaries(connection: Connection, limit: int) -> tuple[StudySummary, ...]:
    """The newest studies first."""
    first = _ranked(tables.studies, "study_id", ("event_id",))
    newest = _fetch(
        connection,
        select(first).where(first.c.rank == 1).order_by(first.c.event_id.desc()).limit(limit),
    )
    ids = [row["study_id"] for row in newest]
    state = _latest(tables.study_states, "study_id", ("event_id",))
    states = {
        row["study_id"]: row
        for row in _fetch(
            connection, select(state).where(state.c.rank == 1, state.c.study_id.in_(ids))
        )
    }
    by = {row["id"]: row["who"] for row in authors(connection, newest)}
    trial = _standing()
    of_trials: dict[str, list[str]] = {}
    for row in _fetch(
        connection, select(trial.c.study_id, trial.c.state).where(trial.c.study_id.in_(ids))
    ):
        of_trials.setdefault(row["study_id"], []).append(row["state"])
    return tuple(
        listing.summary_of(
            row,
            states.get(row["study_id"]),
            of_trials.get(row["study_id"], ()),
            by[row["event_id"]],
        )
        for row in newest
    )


def trial_table(
    connection: Connection, wanted: TrialFilter, limit: int, offset: int
) -> tuple[dict[str, Any], ...]:
    """Flat rows of trials, newest first, with the values of their latest attempts."""
    page = _fetch(connection, _filtered(wanted).limit(limit).offset(offset))
    attempts = {row["trial_id"]: row["attempt"] for row in page}
    values = tables.measurements.c
    measured: dict[str, list[tuple[str, float | None, str]]] = {}
    query = (
        select(values.trial_id, values.attempt, values.metric, values.value, values.origin)
        .where(values.trial_id.in_(list(attempts)), values.condition == "")
        .order_by(values.event_id, values.position)
    )
    for trial_id, attempt, metric, value, origin in connection.execute(query).all():
        if attempt == attempts[trial_id]:
            measured.setdefault(trial_id, []).append((metric, value, origin))
    return tuple(
        listing.table_row(row, row["place"] - 1, row, measured.get(row["trial_id"], ()))
        for row in page
    )


def count(connection: Connection, wanted: TrialFilter) -> int:
    """How many trials the filter finds."""
    wanted_trials = _filtered(wanted).order_by(None).subquery()
    return int(connection.execute(select(func.count()).select_from(wanted_trials)).scalar_one())


def progress(connection: Connection, study_id: str) -> tuple[TrialProgress, ...]:
    """The newest progress of the running trials of a study."""
    state = _standing()
    newest = _latest(tables.progress, "trial_id", ("attempt", "event_id"))
    query = (
        select(newest)
        .join(
            state, (state.c.trial_id == newest.c.trial_id) & (state.c.attempt == newest.c.attempt)
        )
        .where(newest.c.rank == 1, newest.c.study_id == study_id, state.c.state == "running")
        .order_by(newest.c.trial_id)
    )
    return tuple(listing.progress_of(row) for row in _fetch(connection, query))


def environments_of(connection: Connection, trial_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Environment ids by trial, of the attempts that stand."""
    state, values = _standing(), tables.measurements.c
    query = (
        select(values.trial_id, values.environment_id)
        .join(state, (state.c.trial_id == values.trial_id) & (state.c.attempt == values.attempt))
        .where(values.trial_id.in_(trial_ids), values.environment_id != "")
        .distinct()
        .order_by(values.trial_id, values.environment_id)
    )
    return _grouped(connection, query)


def environments_of_studies(
    connection: Connection, study_ids: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Environment ids by study, of all attempts."""
    values = tables.measurements.c
    pair = (values.study_id, values.environment_id)
    named = values.study_id.in_(study_ids), values.environment_id != ""
    return _grouped(connection, select(*pair).where(*named).distinct().order_by(*pair))


def _grouped(connection: Connection, query: Select[Any]) -> dict[str, tuple[str, ...]]:
    """The second column's values by the first's, in the order of the query."""
    values: dict[str, tuple[str, ...]] = {}
    for key, value in connection.execute(query).all():
        values[key] = (*values.get(key, ()), value)
    return values


def environment(connection: Connection, environment_id: str) -> TableRow | None:
    """The first record of an environment."""
    table = tables.environments
    query = (
        select(table)
        .where(table.c.environment_id == environment_id)
        .order_by(table.c.event_id)
        .limit(1)
    )
    return next(iter(_fetch(connection, query)), None)


def reports(
    connection: Connection, report_id: str | None = None, version: int | None = None
) -> list[TableRow]:
    """Report rows: the newest version of each, newest first, unless a version is asked for."""
    newest = _latest(tables.reports, "report_id", ("version",))
    query = select(newest).order_by(newest.c.created_at.desc(), newest.c.report_id.desc())
    if report_id is not None:
        query = query.where(newest.c.report_id == report_id)
    query = query.where(newest.c.rank == 1 if version is None else newest.c.version == version)
    return _fetch(connection, query)


def _filtered(wanted: TrialFilter) -> Select[Any]:
    first = _ranked(tables.trials, "trial_id", ("event_id",))
    place = (
        func.row_number()
        .over(partition_by=first.c.study_id, order_by=first.c.event_id)
        .label("place")
    )
    trial = select(first, place).where(first.c.rank == 1).subquery()
    state = _standing()
    query = (
        select(
            *(
                trial.c[name]
                for name in (
                    "trial_id",
                    "study_id",
                    "title",
                    "model_id",
                    "target_id",
                    "workload_id",
                    "techniques",
                    "happened_at",
                    "place",
                )
            ),
            state.c.attempt,
            state.c.state,
            state.c.reason,
        )
        .join(state, state.c.trial_id == trial.c.trial_id)
        .order_by(trial.c.event_id.desc(), trial.c.trial_id.desc())
    )
    for column, value in (
        (trial.c.study_id, wanted.study_id),
        (trial.c.model_id, wanted.model_id),
        (trial.c.target_id, wanted.target_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.states:
        query = query.where(state.c.state.in_(wanted.states))
    if wanted.technique is not None:
        query = query.where(trial.c.techniques.contains(f",{wanted.technique},", autoescape=True))
    if wanted.text:
        query = query.where(trial.c.searchable.contains(wanted.text, autoescape=True))
    return query


def _standing() -> Subquery:
    """The state of every trial: the row of its highest attempt, furthest step, newest event."""
    states = _latest(tables.trial_states, "trial_id", ("attempt", "step", "event_id"))
    return select(states).where(states.c.rank == 1).subquery()


def _ranked(table: Table, key: str, order: Sequence[str]) -> Subquery:
    rank = func.row_number().over(
        partition_by=table.c[key], order_by=[table.c[name] for name in order]
    )
    return select(table, rank.label("rank")).subquery()


def _latest(table: Table, key: str, order: Sequence[str]) -> Subquery:
    rank = func.row_number().over(
        partition_by=table.c[key], order_by=[table.c[name].desc() for name in order]
    )
    return select(table, rank.label("rank")).subquery()


def _where(connection: Connection, table: Table, key: str, value: str) -> list[TableRow]:
    return _fetch(connection, select(table).where(table.c[key] == value))


def _fetch(connection: Connection, query: Select[Any]) -> list[TableRow]:
    result = connection.execute(query)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]
