"""Many rows in one statement. DuckDB's executemany takes a millisecond a row; rows as one JSON text
take some microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, DateTime, Table, insert, select

from store import tables
from store.rows import Row

_CHUNK = 2000


def append(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert `rows`, which all have the same columns, in the transaction of `connection`."""
    if connection.dialect.name != "duckdb":
        connection.execute(insert(table), list(rows))
        return
    statement, shape = _from_json(table)
    for part in _parts(rows):
        connection.exec_driver_sql(statement, (json.dumps(part, default=_plain), shape))


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
def _from_json(table: Table) -> tuple[str, str]:
    names = [column.name for column in table.columns]
    shape = {
        column.name: "VARCHAR"
        if isinstance(column.type, DateTime) or "JSON" in str(column.type)
        else str(column.type)
        for column in table.columns
    }
    columns = ", ".join(names)
    values = ", ".join(f"r.{name}" for name in names)
    statement = (
        f"insert into {table.name} ({columns}) "
        f"select {values} from (select unnest(from_json(?, ?)) as r)"
    )
    return statement, json.dumps([shape])


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
