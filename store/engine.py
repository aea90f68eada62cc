"""Opening a database: where it lies, how DuckDB is set up, and a sentence for everything that keeps
it shut.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, exc, text
from sqlalchemy.engine import URL, make_url

from core.errors import StoreDamaged, StoreError, StoreHeld

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
WAY_OUT = "choose another file with --store or TRIMTAB_STORE"


def default_path() -> Path:
    """The store's file in the user's data folder."""
    folder = os.environ.get("XDG_DATA_HOME") or ""
    base = Path(folder) if os.path.isabs(folder) else Path.home() / ".local" / "share"
    return base / "trimtab" / "trimtab.duckdb"


def locate(url: str | None) -> Path | URL:
    """The file or the server that `url`, else TRIMTAB_STORE, else the default names; StoreError on
    anything else.
    """
    given = url or os.environ.get("TRIMTAB_STORE") or ""
    if not given:
        return default_path()
    if given.startswith("duckdb:///"):
        given = given.removeprefix("duckdb:///")
    elif "://" in given:
        return _server(given)
    if "\0" in given or not given.strip() or given == ":memory:":
        raise StoreError(
            f"the store {given!r} is not a file name: {WAY_OUT}, or use memory: to keep nothing"
        )
    if "?" in given:
        # DuckDB would put the log of such a file elsewhere.
        raise StoreError(f"the store {given!r} has a question mark in its name: {WAY_OUT}")
    return Path(os.path.abspath(os.path.expanduser(given)))


def _server(given: str) -> URL:
    try:
        url = make_url(given)
        if url.get_backend_name() != "postgresql":
            raise StoreError(
                f"the store's URL begins with {url.drivername!r}: "
                "use a file name, duckdb:///PATH, postgresql://... or memory:"
            )
        url.get_dialect()
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(_no_driver("the store's URL", error)) from None
    except (exc.ArgumentError, ValueError):
        raise StoreError(
            "the store's URL cannot be read: use a file name, duckdb:///PATH, postgresql://..."
        ) from None
    return url


def _no_driver(what: str, error: Exception) -> str:
    return (
        f"{what} needs a driver that is not installed ({error}): "
        "install it with pip install 'trimtab[postgres]'"
    )


def name_of(place: Path | URL) -> str:
    """How messages name the store: no password."""
    return str(place) if isinstance(place, Path) else place.render_as_string(hide_password=True)


def why_read_only(place: Path | URL) -> str:
    """Why a store that is there can be read and not written, in a sentence; empty when it can, or
    when that shows at the first connection.
    """
    if not isinstance(place, Path) or not os.access(place, os.R_OK) or not place.is_file():
        return ""
    locked = next((one for one in (place, place.parent) if not os.access(one, os.W_OK)), None)
    if locked is None:
        return ""
    return (
        f"the store {place} can only be read, because {locked} may not be written: copy the file"
        f" and the folder {place.name}.studies to a place of your own and name that with --store"
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
        raise StoreError(_no_driver(f"the store {name_of(place)}", error)) from None
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
    said = " ".join(str(error.orig).split())
    held = _HELD.search(said)
    if held:
        return StoreHeld(reason(place, error), int(held["pid"]))
    spoilt = any(word in said for word in _DAMAGED) and "No space left" not in said
    return (StoreDamaged if spoilt else StoreError)(reason(place, error))


def reason(place: Path | URL, error: exc.DBAPIError) -> str:
    """The sentence for a database's own error."""
    said = " ".join(str(error.orig).split())
    name = name_of(place)
    held = _HELD.search(said)
    if held:
        program = os.path.basename(held["program"]) or "another program"
        return (
            f"the store {name} is in use by {program} (PID {held['pid']}): "
            f"close that program, or {WAY_OUT}"
        )
    if "not a valid DuckDB database" in said or "external extensions" in said:
        return f"the store {name} is not a DuckDB file and was left as it is: {WAY_OUT}"
    if "replaying WAL" in said:
        return (
            f"the store's log {name}.wal is damaged: move that file away and start again; "
            "studies are then read again from their journals"
        )
    if "version number" in said or "newer version" in said:
        return (
            f"the store {name} was written by a newer DuckDB and was left as it is: "
            f"update Trimtab, or {WAY_OUT}"
        )
    if "No space left" in said:
        return (
            f"the store {name} cannot be written: no space is left on its disk; "
            "what was stored before is safe"
        )
    return f"the store {name} failed: {said[:300]}; {WAY_OUT}"
