"""Many rows in one statement. DuckDB's executemany takes a millisecond a row; a column as one JSON
text takes some microseconds a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, DateTime, Table, insert, select

from store import tables
from store.rows import Row

_CHUNK = 2000


def append(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert `rows`, which all have the same columns, in the transaction of `connection`."""
    if not rows:
        return
    if connection.dialect.name != "duckdb":
        connection.execute(insert(table), list(rows))
        return
    statement, times = _from_json(table)
    for part in _parts(rows):
        columns = (
            [row[name].isoformat() for row in part] if is_time else [row[name] for row in part]
            for name, is_time in times.items()
        )
        connection.exec_driver_sql(statement, tuple(map(json.dumps, columns)))


def known_ids(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Which of `ids` are in the table of events already."""
    wanted = list(ids)
    if connection.dialect.name == "duckdb":
        rows = connection.exec_driver_sql(
            "select id from events where id in (select unnest(from_json(?, '[\"VARCHAR\"]')))",
            (json.dumps(wanted),),
        )
        return {row[0] for row in rows}
    found: set[str] = set()
    for part in _parts(wanted):
        found.update(
            connection.execute(
                select(tables.events.c.id).where(tables.events.c.id.in_(part))
            ).scalars()
        )
    return found


@cache
def _from_json(table: Table) -> tuple[str, dict[str, bool]]:
    """The statement, and for each of its parameters, a column of values as one JSON text, whether
    the column holds times.
    """
    times = {column.name: isinstance(column.type, DateTime) for column in table.columns}
    kinds = {
        column.name: "VARCHAR"
        if times[column.name] or "JSON" in str(column.type)
        else str(column.type)
        for column in table.columns
    }
    values = (f"""unnest(from_json(?, '["{kind}"]'))""" for kind in kinds.values())
    statement = f"insert into {table.name} ({', '.join(kinds)}) select {', '.join(values)}"
    return statement, times


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
