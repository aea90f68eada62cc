"""Many rows in one statement. DuckDB's executemany takes a millisecond a row; a column as one JSON
text takes some microseconds a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from sqlalchemy import Connection, DateTime, Table, insert, select

from store import tables
from store.rows import Row, Rows

_CHUNK = 1000
Item = TypeVar("Item")


def append(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert `rows`, which all have the same columns, in the transaction of `connection`."""
    if not rows:
        return
    if connection.dialect.name != "duckdb":
        connection.execute(insert(table), list(rows))
        return
    statement, times = _from_json(table)
    for part in parts(rows):
        columns = (
            [row[name].isoformat() for row in part] if is_time else [row[name] for row in part]
            for name, is_time in times.items()
        )
        connection.exec_driver_sql(statement, tuple(map(json.dumps, columns)))


def in_turns(
    items: Sequence[Item], make: Callable[[Sequence[Item]], Rows], keep: Callable[[Rows], None]
) -> None:
    """Make rows of the items and keep them, one part while the next is being made: a database at
    work needs no Python. Only one thread at a time touches the connection.
    """
    first, *others = parts(items) or ((),)
    if not others:
        keep(make(first))
        return
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(keep, make(first))
        for part in others:
            rows = make(part)
            kept.result()
            kept = pool.submit(keep, rows)
        kept.result()


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
    for part in parts(wanted):
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


def parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """`items` in pieces that make a statement of a sensible size."""
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
