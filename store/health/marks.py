"""How far each journal was read, kept with the events that were read from it, and what a store can
be asked about its own soundness.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, text
from sqlalchemy.engine import URL

from core.journal.journal import Mark
from store import tables

_CHUNK = 500


def owner(place: Path | URL) -> str:
    """Whose journals a store's marks are about: a file has one folder of journals beside it, a
    server one for each user of each machine.
    """
    return "" if isinstance(place, Path) else f"{socket.gethostname()}/{os.getuid()}"


def keep(connection: Connection, folder: str, marks: Iterable[Mark]) -> None:
    """Replace what was kept of the same journals, in the transaction of `connection`."""
    newest = {mark.key: mark for mark in marks}
    rows = [{"folder": folder} | vars(mark) for mark in newest.values()]
    table = tables.journals.c
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        same = [and_(table.study_id == row["study_id"], table.file == row["file"]) for row in part]
        connection.execute(delete(tables.journals).where(table.folder == folder).where(or_(*same)))
        connection.execute(insert(tables.journals), part)


def kept(connection: Connection, folder: str) -> dict[tuple[str, str], Mark]:
    """All marks, by their keys."""
    table = tables.journals.c
    query = select(
        table.study_id, table.file, table.number, table.hash, table.size, table.modified_ns
    ).where(table.folder == folder)
    marks = (Mark(*row) for row in connection.execute(query))
    return {mark.key: mark for mark in marks}


def scan(connection: Connection) -> None:
    """Read every value of every table, so that a damaged block is met now and not on a page."""
    for table in tables.metadata.sorted_tables:
        if connection.dialect.name == "duckdb":
            connection.execute(text(f"select sum(hash(t)) from {table.name} t")).all()
        else:
            connection.execute(select(func.count()).select_from(table)).all()
