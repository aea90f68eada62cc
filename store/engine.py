"""Opening a database: how DuckDB is set up, and a sentence for everything that keeps it shut."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, exc, text
from sqlalchemy.engine import URL

from core.errors import StoreDamaged, StoreError, StoreHeld
from store.place import WAY_OUT, name_of, no_driver

# Nothing is fetched, loaded or read beside the one file; the measuring processes need the cores
# more than we do.
DUCKDB_CONFIG: dict[str, Any] = {
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
    "python_enable_replacements": False,
    "threads": 2,
    # A checkpoint writes whole blocks: at DuckDB's 16 MB it takes a tenth of a large ingest.
    "wal_autocheckpoint": "64MB",
}
_HELD = re.compile(r"Conflicting lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")
# What DuckDB says of spoilt files; a full disk or a held lock is neither.
_DAMAGED = (
    "Corrupt database file",
    "INTERNAL Error",
    "FATAL Error",
    "Serialization Error",
    "replaying WAL",
    "not a valid DuckDB database",
    "external extensions",
    "Could not read enough bytes",
)


def connect(place: Path | URL, read_only: bool = False) -> Engine:
    """An engine whose first connection worked; StoreError says why it did not, and nothing was
    changed.
    """
    if isinstance(place, Path):
        if not read_only:
            _prepare(place)
        url: URL = URL.create("duckdb", database=str(place))
        arguments: dict[str, Any] = {"config": dict(DUCKDB_CONFIG), "read_only": read_only}
        more: dict[str, Any] = {}
    else:
        plain = place.drivername == "postgresql"
        url = place.set(drivername="postgresql+psycopg") if plain else place
        arguments = {}
        # All statements of a transaction see the same rows, as they do in DuckDB.
        more = {"isolation_level": "REPEATABLE READ", "pool_pre_ping": True}
    try:
        engine = create_engine(
            url,
            connect_args=arguments,
            **more,
            pool_size=16,
            max_overflow=-1,
            # JSON columns hold text that the codec wrote: the driver shall hand it over untouched.
            json_serializer=lambda value: value,
            json_deserializer=lambda value: value if isinstance(value, str) else value.decode(),
        )
    except ModuleNotFoundError as error:
        raise StoreError(no_driver(f"the store {name_of(place)}", error)) from None
    try:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
    except exc.DBAPIError as error:
        engine.dispose()
        raise failure(place, error) from None
    return engine


def _prepare(path: Path) -> None:
    """Make the folder; look at the file from outside only: closing a file that this process has
    open in DuckDB would give its lock away (POSIX record locks end with the first close).
    """
    try:
        if path.is_dir():
            raise StoreError(f"the store {path} is a folder: name a file in it, or {WAY_OUT}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if not path.is_file():
                raise StoreError(f"the store {path} is not a file: {WAY_OUT}")
            if not os.access(path, os.R_OK | os.W_OK):
                raise StoreError(
                    f"the store {path} may not be read and written by this user: {WAY_OUT}"
                )
            if path.stat().st_size == 0 and not path.with_name(path.name + ".wal").exists():
                path.unlink()
    except OSError as error:
        raise StoreError(
            f"the store {path} cannot be used: {error.strerror or error}; {WAY_OUT}"
        ) from None


def failure(place: Path | URL, error: exc.DBAPIError) -> StoreError:
    """The error to raise for a database's own error: StoreHeld when another process has it open,
    StoreDamaged when its files are spoilt.
    """
    words = " ".join(str(error.orig).split())
    held = _HELD.search(words)
    if held:
        return StoreHeld(reason(place, error), int(held["pid"]))
    spoilt = any(word in words for word in _DAMAGED) and "No space left" not in words
    return (StoreDamaged if spoilt else StoreError)(reason(place, error))


def reason(place: Path | URL, error: exc.DBAPIError) -> str:
    """The sentence for a database's own error."""
    words = " ".join(str(error.orig).split())
    name = name_of(place)
    held = _HELD.search(words)
    if held:
        program = os.path.basename(held["program"]) or "another program"
        return (
            f"the store {name} is in use by {program} (PID {held['pid']}): "
            f"close that program, or {WAY_OUT}"
        )
    if "not a valid DuckDB database" in words or "external extensions" in words:
        return f"the store {name} is not a DuckDB file and was left as it is: {WAY_OUT}"
    if "replaying WAL" in words:
        return (
            f"the store's log {name}.wal is damaged: move that file away and start again; "
            "studies are then read again from their journals"
        )
    if "version number" in words or "newer version" in words:
        return (
            f"the store {name} was written by a newer DuckDB and was left as it is: "
            f"update Trimtab, or {WAY_OUT}"
        )
    if "No space left" in words:
        return (
            f"the store {name} cannot be written: no space is left on its disk; "
            "what was stored before is safe"
        )
    return f"the store {name} failed: {words[:300]}; {WAY_OUT}"
