"""Many rows in one statement. DuckDB's executemany takes a millisecond a row; columns as Arrow
arrays take some microseconds a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import BigInteger, Connection, DateTime, Double, Integer, Table, insert, select

from store import tables
from store.interface import TableRow

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 2500
Item = TypeVar("Item")


def append(connection: Connection, table: Table, rows: Sequence[TableRow]) -> None:
    """Insert `rows`, which all have the same columns, in the transaction of `connection`."""
    if not rows:
        return
    if connection.dialect.name != "duckdb":
        connection.execute(insert(table), list(rows))
        return
    import pyarrow as pa
    from duckdb_sqlalchemy.bulk import insert_from_arrow

    schema = _schema(table)
    for part in parts(rows):
        columns = [pa.array([row[column.name] for row in part], column.type) for column in schema]
        insert_from_arrow(connection, table, pa.Table.from_arrays(columns, schema=schema))


def known_ids(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Which of `ids` are in the table of events already."""
    wanted = list(ids)
    if connection.dialect.name == "duckdb":
        rows = connection.exec_driver_sql(
            "select id from events where id in (select unnest(from_json(?, '[\"VARCHAR\"]')))",
            (json.dumps(wanted),),
        )
        return {row[0] for row in rows}
    known: set[str] = set()
    for part in parts(wanted):
        known.update(
            connection.execute(
                select(tables.events.c.id).where(tables.events.c.id.in_(part))
            ).scalars()
        )
    return known


@cache
def _schema(table: Table) -> pa.Schema:
    """The columns of `table` as Arrow's; JSON is text there."""
    import pyarrow as pa

    kinds = {DateTime: pa.timestamp("us"), Double: pa.float64()}
    kinds |= {BigInteger: pa.int64(), Integer: pa.int32()}
    return pa.schema(
        (column.name, kinds.get(type(column.type), pa.string())) for column in table.columns
    )


def parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """`items` in pieces that make a statement of a sensible size."""
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
