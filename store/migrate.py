"""Bring a database to the newest schema: nothing is touched that is newer, or that is not ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, exc, inspect, text
from sqlalchemy.engine import URL

from core.errors import StoreError
from store.engine import connect, failure
from store.place import WAY_OUT, name_of, why_read_only

HEAD = "0004"
SCRIPTS = Path(__file__).parent / "migrations"
# Any number of our own that no other program is likely to lock.
_UPGRADING = 8_204_156_731


def open_current(place: Path | URL, scripts: Path = SCRIPTS, head: str = HEAD) -> Engine:
    """An engine on a database of revision `head`. An older file is copied to NAME.bak-<its
    revision> first; one that may not be written is opened to be read.
    """
    read_only = why_read_only(place)
    engine = connect(place, bool(read_only))
    try:
        current = revision(engine)
        if current == head:
            return engine
        _refuse_strangers(engine, place, scripts, current)
        if read_only:
            raise StoreError(f"{read_only}; it must be brought to the newest schema first")
        if current is not None and isinstance(place, Path):
            _checkpoint(engine)
            # The copy must not be made while this process holds the file: closing it would give the
            # lock away.
            engine.dispose()
            _back_up(place, current)
            engine = connect(place)
        with _alone(engine):
            if revision(engine) != head:
                _upgrade(engine, scripts)
        _checkpoint(engine)
    except exc.DBAPIError as error:
        engine.dispose()
        raise failure(place, error) from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def revision(engine: Engine) -> str | None:
    """The schema's revision; None when the database has none."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revisions = (
            connection.execute(text("select version_num from alembic_version")).scalars().all()
        )
        return str(revisions[0]) if revisions else None


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """On a server, wait until no other process upgrades; a file has only one."""
    if engine.dialect.name == "duckdb":
        yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"select pg_advisory_lock({_UPGRADING})"))
        try:
            yield
        finally:
            connection.execute(text(f"select pg_advisory_unlock({_UPGRADING})"))


def _refuse_strangers(engine: Engine, place: Path | URL, scripts: Path, schema: str | None) -> None:
    name = name_of(place)
    if schema is None:
        with engine.connect() as connection:
            if inspect(connection).get_table_names():
                raise StoreError(
                    f"the store {name} belongs to another program: it has tables that are not "
                    f"Trimtab's and was left as it is; {WAY_OUT}"
                )
    elif not list((scripts / "versions").glob(f"{schema}_*.py")):
        raise StoreError(
            f"the store {name} was written by a newer Trimtab (its schema is {schema!r}) and was "
            f"left as it is: update Trimtab, or {WAY_OUT}"
        )


def _back_up(path: Path, schema: str) -> None:
    copy = path.with_name(f"{path.name}.bak-{schema}")
    number = 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}.bak-{schema}-{number}")
    try:
        shutil.copy2(path, copy)
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise StoreError(
            f"the store {path} must be upgraded but cannot be copied to {copy.name} first: "
            f"{error.strerror}; nothing was changed"
        ) from None


def _upgrade(engine: Engine, scripts: Path) -> None:
    from alembic import command
    from alembic.config import Config

    if engine.dialect.name == "duckdb":
        # The dialect registers itself with Alembic only when Alembic was there first.
        import duckdb_sqlalchemy.alembic_impl  # noqa: F401

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _checkpoint(engine: Engine) -> None:
    """Replaying logged schema changes is DuckDB's weak spot: fold them into the file at once."""
    if engine.dialect.name == "duckdb":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("checkpoint"))
