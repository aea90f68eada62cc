"""Where a store lies, and what is said when it cannot be opened. Whatever lay there before stays as
it was.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from core.errors import StoreError
from core.journal.events import Event
from store import TrialFilter, engine, open_store, place

ROOT = Path(__file__).resolve().parents[2]


def refused(url: object) -> str:
    """The sentence with which a store is not opened."""
    with pytest.raises(StoreError) as caught:
        open_store(str(url))
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_importing_the_store_imports_no_database(tmp_path):
    program = (
        "import sys, store\n"
        "def show():\n"
        "    names = ('sqlalchemy', 'duckdb', 'alembic', 'pandas', 'torch')\n"
        "    print([name for name in names if name in sys.modules])\n"
        "show()\n"
        "store.open_store('memory:')\n"
        "show()\n"
        "store.open_store(sys.argv[1] + '/new.duckdb').close()\n"
        "store.open_store(sys.argv[1] + '/new.duckdb').close()\n"
        "print('torch' in sys.modules)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert out.stdout == "[]\n[]\nFalse\n"
    assert out.stderr == ""


def test_the_default_is_a_file_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("TRIMTAB_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store = open_store()
    store.close()
    assert (tmp_path / "data" / "trimtab" / "trimtab.duckdb").is_file()

    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".local" / "share" / "trimtab" / "trimtab.duckdb"
    assert place.locate(None) == place.locate("") == expected


def test_the_variable_names_the_store_and_the_argument_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIMTAB_STORE", str(tmp_path / "variable.duckdb"))
    open_store().close()
    open_store(str(tmp_path / "argument.duckdb")).close()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "argument.duckdb",
        "variable.duckdb",
    ]
    monkeypatch.setenv("TRIMTAB_STORE", "memory:")
    assert type(open_store()).__name__ == "MemoryStore"


@pytest.mark.parametrize(
    "name", ["a b.duckdb", "100%.duckdb", "ü世.duckdb", "q=1#y.duckdb", "s'q\".db", "new/er.db"]
)
def test_any_file_name_will_do(tmp_path, make, name):
    for url in (str(tmp_path / "one" / name), f"duckdb:///{tmp_path}/two/{name}"):
        store = open_store(url)
        store.ingest(make.whole()[1])
        store.close()
        store = open_store(url)
        assert store.count_trials(TrialFilter()) == 3
        store.close()
    assert (tmp_path / "one" / name).is_file()
    assert (tmp_path / "two" / name).is_file()


def test_a_relative_name_and_a_home_are_understood(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")

    assert (
        place.locate("here.duckdb")
        == place.locate("duckdb:///here.duckdb")
        == tmp_path / "here.duckdb"
    )
    assert place.locate("~/x.duckdb") == Path("/home/somebody/x.duckdb")


def test_a_folder_is_refused(tmp_path):
    assert refused(tmp_path).startswith(f"the store {tmp_path} is a folder: ")


def test_a_file_below_a_file_is_refused(tmp_path):
    (tmp_path / "plain").write_text("x")
    assert refused(tmp_path / "plain" / "store.duckdb").startswith(
        f"the store {tmp_path}/plain/store.duckdb cannot be used: "
    )


def test_what_may_not_be_read_is_refused(file, monkeypatch):
    monkeypatch.setattr(engine.os, "access", lambda path, mode: False)
    assert "may not be read and written by this user" in refused(file)


def test_a_device_is_refused():
    assert refused("/dev/null").startswith("the store /dev/null is not a file: ")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///x.db", "begins with 'sqlite': use a file name"),
        ("mysql://u:p@h/d", "begins with 'mysql': use a file name"),
        ("://", "the store's URL cannot be read"),
        ("postgresql+nosuch://u@h/d", "needs a driver that is not installed"),
        ("a\0b", "is not a file name"),
        (" ", "is not a file name"),
        (":memory:", "use memory: to keep nothing"),
        ("duckdb:///:memory:", "use memory: to keep nothing"),
        ("what?.duckdb", "has a question mark in its name"),
        ("x" * 5000, "cannot be used"),
    ],
)
def test_a_url_that_names_no_store_is_refused(monkeypatch, tmp_path, url, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(url)
    assert list(tmp_path.iterdir()) == []


def test_no_password_is_shown():
    said = place.name_of(place.locate("postgresql://ann:secret@host/base"))
    assert said == "postgresql://ann:***@host/base"


def sqlite_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table t(a)")
    connection.commit()
    connection.close()


def strangers_file(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table t(a int)")


def newer_file(path: Path) -> None:
    open_store(str(path)).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("update alembic_version set version_num = '9999'")


def future_duckdb_file(path: Path) -> None:
    open_store(str(path)).close()
    data = bytearray(path.read_bytes())
    data[12] = 250
    path.write_bytes(data)


def cut_file(path: Path) -> None:
    open_store(str(path)).close()
    path.write_bytes(path.read_bytes()[:9000])


def flipped_file(path: Path) -> None:
    open_store(str(path)).close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(255 - byte for byte in data[len(data) // 2 :])
    data[5000:5100] = bytes(100)
    data[9000:9100] = bytes(100)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make_file", "said"),
    [
        (
            lambda path: path.write_text("dear diary\n" * 1000),
            "is not a DuckDB file and was left as it is",
        ),
        (lambda path: path.write_bytes(b"x"), "is not a DuckDB file and was left as it is"),
        (sqlite_file, "is not a DuckDB file and was left as it is"),
        (strangers_file, "belongs to another program"),
        (newer_file, "was written by a newer Trimtab (its schema is '9999')"),
        (future_duckdb_file, "--store"),
        (cut_file, "--store"),
        (flipped_file, "--store"),
    ],
)
def test_a_file_that_is_no_store_of_ours_is_left_as_it_is(tmp_path, make_file, said):
    path = tmp_path / "some.file"
    make_file(path)
    before = path.read_bytes()

    assert said in refused(path)

    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["some.file"]


def test_an_empty_file_becomes_a_store(tmp_path):
    path = tmp_path / "empty.duckdb"
    path.touch()
    store = open_store(str(path))
    assert store.studies() == ()
    store.close()


def test_an_empty_file_beside_a_log_is_no_new_store(tmp_path):
    path = tmp_path / "empty.duckdb"
    path.touch()
    (tmp_path / "empty.duckdb.wal").write_bytes(b"something")

    assert "is not a DuckDB file" in refused(path)

    assert (tmp_path / "empty.duckdb.wal").read_bytes() == b"something"


def test_a_closed_store_says_so(file):
    store = open_store(str(file))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed: open it again"):
        store.ingest([Event("e-1", "note", "s", "t", "2026-11-21", {"attempt": 1, "text": ""})])
    with pytest.raises(StoreError, match="was closed: open it again"):
        store.studies()


def test_a_store_copied_elsewhere_is_a_store(file, tmp_path, make):
    store = open_store(str(file))
    store.ingest(make.whole()[1])
    store.close()
    copy = shutil.copy(file, tmp_path / "copy.duckdb")
    other = open_store(str(copy))
    assert other.count_trials(TrialFilter()) == 3
    other.close()
