"""A store's tables as Parquet files, one each, for other programs. The store's own connection may
touch no other file: a copy is exported, by a database of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from core.errors import StoreError
from store import tables
from store.interface import Store


def export(store: Store, folder: Path) -> dict[str, int]:
    """Write FOLDER/TABLE.parquet for every table of the store; rows by table. `folder` must be new
    or empty.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-export-") as inside:
        copy = Path(inside) / "copy.duckdb"
        store.snapshot(copy)
        return export_file(copy, folder)


def export_file(database: Path, folder: Path) -> dict[str, int]:
    """As export, from the file of a store that nobody has open."""
    import duckdb

    try:
        if folder.exists() and any(folder.iterdir()):
            raise StoreError(f"the folder {folder} is not empty: name a new one for the export")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".trimtab-export-", dir=folder.parent))
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be used: {error.strerror or error}") from None
    rows = {}
    try:
        config: dict[str, Any] = {"threads": 2, "autoinstall_known_extensions": False}
        with duckdb.connect(str(database), read_only=True, config=config) as connection:
            for table in tables.metadata.sorted_tables:
                target = str(part / f"{table.name}.parquet").replace("'", "''")
                connection.execute(f"copy {table.name} to '{target}' (format parquet)")
                count = connection.execute(f"select count(*) from {table.name}").fetchone()
                rows[table.name] = int(count[0]) if count else 0
        part.chmod(0o755)
        # Over an empty folder a rename is allowed; what came into it meanwhile stops it.
        os.rename(part, folder)
    except (duckdb.Error, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StoreError(f"the store cannot be exported to {folder}: {reason}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return rows
