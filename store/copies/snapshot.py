"""A copy of a whole database in a DuckDB file of its own, while others go on reading and writing.

Owns how the copy is made; what is done with it is said in backup.py and parquet.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import Connection, exc, select, text

from core.errors import StoreError
from store import bulk, tables
from store.engine import connect, failure
from store.interface import TableRow
from store.migrate import open_current

_CHUNK = 2000
# Closing a file that this process has open in DuckDB would give its lock away: another process
# copies.
_COPY = """
import os, shutil, sys
for source, target in (sys.argv[1:3], sys.argv[3:5]):
    if os.path.exists(source):
        with open(source, "rb") as read, open(target, "xb") as write:
            shutil.copyfileobj(read, write, 1 << 22)
            os.fsync(write.fileno())
"""


def copy_file(source: Path, target: Path) -> None:
    """Copy a DuckDB file that this process has open and checkpointed, and what its log still holds.

    The caller lets nobody write meanwhile. StoreError when the copy cannot be made.
    """
    logs = [str(path.with_name(path.name + ".wal")) for path in (source, target)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _COPY, str(source), str(target), *logs],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["the copying process was killed"])[-1]
        raise StoreError(f"the store {source} cannot be copied to {target}: {reason}")


def settle(target: Path, names: tuple[str, ...] = tuple(tables.metadata.tables)) -> dict[str, int]:
    """Open the copy, fold its log into it, and count the rows of its tables."""
    opened = connect(target)
    try:
        with opened.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("checkpoint"))
            return {
                name: int(connection.execute(text(f"select count(*) from {name}")).scalar_one())
                for name in names
            }
    except exc.DBAPIError as error:
        raise failure(target, error) from None
    finally:
        opened.dispose()


def copy_rows(source: Connection, target: Path) -> None:
    """Copy every row that `source` sees to a new DuckDB store at `target`."""
    opened = open_current(target)
    try:
        with opened.begin() as connection:
            for table in tables.metadata.sorted_tables:
                result = source.execution_options(yield_per=_CHUNK).execute(select(table))
                names = tuple(result.keys())
                for part in result.partitions():
                    rows: list[TableRow] = [dict(zip(names, row, strict=True)) for row in part]
                    bulk.append(connection, table, rows)
    finally:
        opened.dispose()
