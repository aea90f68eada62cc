"""A store of any age opens, after a copy was made; migrations make no sound."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import duckdb
import pytest
from sqlalchemy import inspect

from core.errors import StoreError
from store import migrate, open_store
from store.engine import connect
from store.repository import SqlStore
from store.tables import metadata

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{head}"


def upgrade():
    op.create_table("tags", sa.Column("name", sa.String()))
    op.execute("insert into tags values ('kept')")
    {more}
"""


@pytest.fixture
def newer(tmp_path: Path):
    """The migrations of a later Trimtab; `more` is the last line of its own upgrade."""

    def write(more: str = "pass") -> Path:
        folder = tmp_path / "migrations"
        shutil.copytree(migrate.SCRIPTS, folder)
        (folder / "versions" / "9000_tags.py").write_text(
            LATER.format(more=more, head=migrate.HEAD)
        )
        return folder

    return write


def facts(path: Path) -> list[tuple[object, ...]]:
    """What the tables of a store hold, by DuckDB alone."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return [
            (table.name, *row)
            for table in metadata.sorted_tables
            for row in connection.execute(f"select * from {table.name} order by all").fetchall()
        ]


def test_the_head_is_the_last_revision():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


def test_migrating_makes_the_tables_that_the_code_uses(tmp_path):
    migrated = migrate.open_current(tmp_path / "migrated.duckdb")
    made = connect(tmp_path / "made.duckdb")
    metadata.create_all(made)

    def shape(engine):
        found = inspect(engine)
        return {
            name: (
                [
                    (one["name"], str(one["type"]), one["nullable"])
                    for one in found.get_columns(name)
                ],
                found.get_pk_constraint(name)["constrained_columns"],
            )
            for name in found.get_table_names()
            if name != "alembic_version"
        }

    assert shape(migrated) == shape(made)
    assert set(shape(made)) == set(metadata.tables)
    migrated.dispose()
    made.dispose()


def test_an_older_store_is_copied_then_upgraded_and_loses_nothing(file, make, newer):
    store = open_store(str(file))
    store.ingest(make.whole()[1])
    study = store.study("s-1")
    store.close()
    before = facts(file)

    engine = migrate.open_current(file, newer(), "9000")

    assert migrate.revision(engine) == "9000"
    assert SqlStore(file, engine).study("s-1") == study
    engine.dispose()
    copy = file.with_name(f"trimtab.duckdb.bak-{migrate.HEAD}")
    assert facts(copy) == facts(file) == before
    assert sorted(one.name for one in file.parent.iterdir()) == [
        "migrations",
        "trimtab.duckdb",
        f"trimtab.duckdb.bak-{migrate.HEAD}",
    ]
    old = open_store(str(copy))
    assert old.study("s-1") == study
    old.close()


def test_what_a_killed_process_left_in_the_log_is_in_the_copy_too(file, make, newer, tmp_path):
    store = open_store(str(file))
    store.ingest(make.whole()[1])
    killed = tmp_path / "killed.duckdb"
    for suffix in ("", ".wal"):
        shutil.copy(f"{file}{suffix}", f"{killed}{suffix}")
    store.close()
    assert Path(f"{killed}.wal").stat().st_size > 0

    migrate.open_current(killed, newer(), "9000").dispose()

    assert facts(killed.with_name(f"killed.duckdb.bak-{migrate.HEAD}")) == facts(file)


def test_an_older_copy_is_not_overwritten(file, newer):
    taken = file.with_name(f"trimtab.duckdb.bak-{migrate.HEAD}")
    taken.write_text("mine")

    migrate.open_current(file, newer(), "9000").dispose()

    assert taken.read_text() == "mine"
    assert file.with_name(f"trimtab.duckdb.bak-{migrate.HEAD}-2").is_file()


def test_a_store_that_cannot_be_copied_is_not_upgraded(file, newer, monkeypatch):
    def full(source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(migrate.shutil, "copy2", full)

    with pytest.raises(
        StoreError, match=rf"cannot be copied to trimtab.duckdb.bak-{migrate.HEAD} first: No space"
    ):
        migrate.open_current(file, newer(), "9000")

    monkeypatch.undo()
    assert not file.with_name(f"trimtab.duckdb.bak-{migrate.HEAD}").exists()
    open_store(str(file)).close()


def test_a_failed_upgrade_leaves_the_store_as_it_was(file, make, newer):
    store = open_store(str(file))
    store.ingest(make.whole()[1])
    store.close()
    before = facts(file)

    with pytest.raises(StoreError, match="nowhere"):
        migrate.open_current(file, newer('op.execute("insert into nowhere values (1)")'), "9000")

    assert facts(file) == before
    store = open_store(str(file))
    assert store.study("s-1").state == "done"
    store.close()


def test_an_upgraded_store_is_too_new_for_the_older_program(file, newer):
    migrate.open_current(file, newer(), "9000").dispose()

    with pytest.raises(StoreError, match=re.escape("newer Trimtab (its schema is '9000')")):
        open_store(str(file))


def test_after_an_upgrade_nothing_waits_in_the_log(tmp_path):
    path = tmp_path / "new.duckdb"
    engine = migrate.open_current(path)
    log = Path(f"{path}.wal")
    assert not log.exists() or log.stat().st_size == 0
    engine.dispose()


def test_migrating_prints_nothing_and_leaves_logging_alone(tmp_path, capfd, caplog):
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("alembic").level
    with caplog.at_level(logging.WARNING):
        open_store(str(tmp_path / "new.duckdb")).close()

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert (root.level, list(root.handlers), logging.getLogger("alembic").level) == before
    assert not logging.getLogger("core").disabled
