"""What a server does otherwise than a file: it is shared, migrated in place, and named without its
password. All that is alike is in test_contract*.py.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import inspect

from core.errors import StoreError
from core.journal import codec, events
from core.report import Report
from store import TrialFilter, migrate, open_store
from store.copies import parquet
from store.engine import connect
from store.place import locate
from store.tables import metadata
from tests.store import release


def columns(url: str) -> dict[str, list[tuple[str, str, bool]]]:
    """Names, types and nullability of every column, as the server tells them."""
    engine = connect(locate(url))
    found = inspect(engine)
    shape = {
        name: [(one["name"], str(one["type"]), one["nullable"]) for one in found.get_columns(name)]
        for name in found.get_table_names()
        if name != "alembic_version"
    }
    engine.dispose()
    return shape


def test_migrating_makes_the_tables_that_the_code_uses(server):
    migrated, made = server.database(), server.database()
    open_store(migrated).close()
    engine = connect(locate(made))
    metadata.create_all(engine)
    engine.dispose()

    assert columns(migrated) == columns(made)
    assert set(columns(made)) == set(metadata.tables)


def test_the_store_of_the_first_release_is_upgraded_and_answers_as_before(server):
    from alembic import command
    from alembic.config import Config

    url = server.database("released")
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    engine = connect(locate(url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    server.execute("released", ";\n".join(release.statements("0001")))

    store = open_store(url)

    then = release.expected("0001")["answers"]
    for study_id, document in then["whole"].items():
        assert store.study(study_id) == codec.loads(document)
    assert store.count_trials(TrialFilter()) == len(then["rows"])
    reports = [store.report("r-1", version) for version in (1, 2)]
    assert reports == [codec.loads(document) for document in then["reports"]]
    store.close()


def test_of_many_that_open_a_new_database_one_migrates_it(server):
    url = server.database()

    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: open_store(url), range(6)))

    assert [store.studies() for store in stores] == [()] * 6
    for store in stores:
        store.close()


def test_tables_of_another_program_are_left_alone(server):
    url = server.database("strangers")
    server.execute("strangers", "create table t(a int)")

    with pytest.raises(StoreError, match="belongs to another program"):
        open_store(url)

    assert set(columns(url)) == {"t"}


def test_a_newer_schema_is_refused(server):
    url = server.database("newer")
    open_store(url).close()
    server.execute("newer", "update alembic_version set version_num = '9999'")

    with pytest.raises(StoreError, match=r"written by a newer Trimtab \(its schema is '9999'\)"):
        open_store(url)


def test_two_programs_may_use_one_server(database, make):
    first, second = open_store(database), open_store(database)
    _, told = make.whole()

    assert first.ingest(told[:20]) == 20
    assert second.ingest(told) == len(told) - 20

    assert first.study("s-1") == second.study("s-1")
    assert len(first.study("s-1").trials) == 3
    first.close()
    second.close()


def test_a_read_of_several_tables_sees_one_moment(database, make):
    store = open_store(database)
    _, told = make.whole()
    with store._read() as reading:
        before = reading.exec_driver_sql("select count(*) from events").scalar_one()
        store.ingest(told)
        after = reading.exec_driver_sql("select count(*) from measurements").scalar_one()

    assert (before, after) == (0, 0)
    assert len(store.study("s-1").trials) == 3
    store.close()


def test_a_server_that_is_not_there_is_named_without_its_password():
    with pytest.raises(StoreError) as caught:
        open_store("postgresql://ann:secret@127.0.0.1:9/base")

    said = str(caught.value)
    assert said.startswith("the store postgresql://ann:***@127.0.0.1:9/base failed: ")
    assert "secret" not in said
    assert "\n" not in said


def test_without_the_driver_the_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match="needs a driver that is not installed") as caught:
        open_store("postgresql://ann@127.0.0.1:9/base")

    assert "trimtab[postgres]" in str(caught.value)


def test_parquet_holds_the_rows_of_the_server(database, make, tmp_path):
    import duckdb

    store = open_store(database)
    _, told = make.whole()
    store.ingest(told)
    store.save_report(Report("r-1", 1, "One", store.study("s-1"), (), "", "2026-11-21"))

    rows = parquet.export(store, tmp_path / "tables")

    assert {path.stem for path in (tmp_path / "tables").iterdir()} == set(metadata.tables)
    assert rows["measurements"] == 3 * len(make.measurements())
    with duckdb.connect() as connection, store._read() as reading:
        for table in metadata.sorted_tables:
            path = tmp_path / "tables" / f"{table.name}.parquet"
            found = connection.execute(f"select * from '{path}'").fetchall()
            kept = reading.execute(table.select()).all()
            assert sorted(map(repr, found)) == sorted(repr(tuple(row)) for row in kept)
    store.close()


def test_a_restarted_server_is_connected_to_again(database, server, make):
    store = open_store(database)
    store.ingest(make.whole()[1])
    server.execute(
        "postgres",
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'migrated'",
    )

    store.ingest([events.event("note", "s-1", "s-1-t0", attempt=1, text="new")])

    assert store.trial("s-1-t0").notes[-1] == "new"
    store.close()
