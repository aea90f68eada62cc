"""Backups come back row for row, and a damaged or hostile archive puts nothing anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import duckdb
import pytest

from core.errors import StoreError
from core.journal import events
from core.journal.journal import Journal
from core.report import Report
from store import open_store
from store.copies.backup import DATABASE, MANIFEST, back_up, restore_to, unpack
from store.tables import metadata
from tests.evidence.store import backup


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, by DuckDB alone."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return {
            table.name: connection.execute(f"select * from {table.name} order by all").fetchall()
            for table in metadata.sorted_tables
        }


def whole(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def kept(file: Path, make):
    """A store with a study, a report and journals; open."""
    folder = file.with_name("trimtab.duckdb.studies")
    store = open_store(str(file))
    told = make.whole()[1]
    with Journal(folder / "s-1" / "study.jsonl") as journal:
        journal.extend(told)
    (folder / "s-1" / "s-1-t0-1.log").write_text("not a journal")
    (folder / "losses.log").write_text("one sentence\n")
    store.ingest(told)
    store.save_report(Report("r-1", 1, "One", store.study("s-1"), (), "", "2026-11-21"))
    yield store, folder
    store.close()


@pytest.fixture
def archive(kept, tmp_path: Path) -> Path:
    store, folder = kept
    back_up(store, folder, tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def refused(source: Path, place: Path) -> str:
    """The sentence with which an archive is not restored; nothing was put anywhere."""
    journals = place.with_name(place.name + ".studies")
    with pytest.raises(StoreError) as caught:
        restore_to(source, place, journals)
    assert not place.exists()
    assert not journals.exists()
    assert [path.name for path in place.parent.iterdir()] == [] or place.parent == source.parent
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_restored_store_is_the_same_row_for_row(kept, file, archive, tmp_path):
    store, folder = kept
    place = tmp_path / "new" / "place.duckdb"
    journals = tmp_path / "new" / "place.duckdb.studies"

    manifest = restore_to(archive, place, journals)

    assert sorted(path.name for path in place.parent.iterdir()) == [place.name, journals.name]
    assert whole(journals) == {
        name: data for name, data in whole(folder).items() if not name.endswith("t0-1.log")
    }
    restored = open_store(str(place))
    assert restored.study("s-1") == store.study("s-1")
    assert restored.reports() == store.reports()
    restored.close()
    store.close()
    assert contents(place) == contents(file)
    assert manifest.rows == {name: len(rows) for name, rows in contents(place).items()}
    assert manifest.journals == 1
    when = (folder / "s-1" / "study.jsonl").stat().st_mtime_ns
    assert (journals / "s-1" / "study.jsonl").stat().st_mtime_ns == when


def test_a_backup_holds_what_was_not_yet_folded_into_the_file(kept, file, make, tmp_path):
    store, folder = kept
    store.ingest(make.whole("s-2")[1])
    assert file.with_name("trimtab.duckdb.wal").stat().st_size > 0

    back_up(store, folder, tmp_path / "backup.tar")
    restore_to(tmp_path / "backup.tar", tmp_path / "new.duckdb", tmp_path / "new.studies")

    restored = open_store(str(tmp_path / "new.duckdb"))
    assert restored.study("s-2") == store.study("s-2")
    restored.close()


def test_after_a_backup_the_store_still_belongs_to_this_process(kept, file, archive):
    program = "import duckdb, sys; duckdb.connect(sys.argv[1])"
    other = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False
    )

    assert "Conflicting lock" in other.stderr


def test_a_backup_is_taken_while_another_thread_reads(kept, tmp_path):
    store, folder = kept
    with store._engine.connect() as reading:
        reading.exec_driver_sql("select * from events").fetchone()
        store.ingest([events.event("note", "s-1", "s-1-t0", attempt=1, text="new")])

        manifest = back_up(store, folder, tmp_path / "backup.tar")

    assert manifest.rows["notes"] == 4


def test_a_file_that_is_there_is_not_overwritten(kept, tmp_path):
    store, folder = kept
    (tmp_path / "mine.tar").write_text("mine")

    with pytest.raises(StoreError, match="exists already and was left as it is"):
        back_up(store, folder, tmp_path / "mine.tar")
    with pytest.raises(StoreError, match=r"nowhere/x.tar cannot be written: No such file"):
        back_up(store, folder, tmp_path / "nowhere" / "x.tar")

    assert (tmp_path / "mine.tar").read_text() == "mine"


def test_a_store_in_memory_has_nothing_to_back_up(tmp_path):
    with pytest.raises(StoreError, match="a store in memory keeps nothing"):
        back_up(open_store("memory:"), tmp_path, tmp_path / "backup.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_backup_leaves_nothing(kept, tmp_path, monkeypatch):
    from store.copies import snapshot

    store, folder = kept
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(snapshot, "_COPY", "raise OSError(28, 'No space left on device')")

    with pytest.raises(StoreError, match=r"cannot be copied to .*No space left on device"):
        back_up(store, folder, tmp_path / "backup.tar")

    assert {path.name for path in tmp_path.iterdir()} <= before


def test_what_is_kept_is_not_overwritten(archive, kept, file, tmp_path):
    store, folder = kept
    store.close()
    before = file.read_bytes(), whole(folder)

    with pytest.raises(StoreError, match=r"trimtab.duckdb is not empty and was left as it is"):
        restore_to(archive, file, tmp_path / "other.studies")
    with pytest.raises(StoreError, match=r"folder of journals .* is not empty"):
        restore_to(archive, tmp_path / "new.duckdb", folder)
    (tmp_path / "plain").write_text("mine")
    with pytest.raises(StoreError, match="plain is in the way"):
        restore_to(archive, tmp_path / "new.duckdb", tmp_path / "plain")

    assert (file.read_bytes(), whole(folder)) == before
    assert not (tmp_path / "new.duckdb").exists()


def test_an_empty_store_may_be_replaced(archive, empty_store, tmp_path):
    place = Path(shutil.copy(empty_store, tmp_path / "empty.duckdb"))
    (tmp_path / "empty.studies").mkdir()

    restore_to(archive, place, tmp_path / "empty.studies")

    restored = open_store(str(place))
    assert len(restored.study("s-1").trials) == 3
    restored.close()


def test_a_store_that_another_process_holds_is_not_replaced(archive, kept, file, tmp_path):
    program = (
        "import sys; from pathlib import Path; from core.errors import StoreHeld\n"
        "from store.copies.backup import restore_to\n"
        "try: restore_to(*map(Path, sys.argv[1:]))\n"
        "except StoreHeld as held: print(held.pid)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(archive), str(file), str(tmp_path / "x.studies")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert out.stdout == f"{os.getpid()}\n"


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_was_cut_off_is_refused(archive, tmp_path, share):
    data = archive.read_bytes()
    end = len(data.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[: int(end * share)])

    assert f"the backup {cut} was not restored: " in refused(cut, tmp_path / "new.duckdb")


def test_no_changed_byte_goes_unseen(archive, tmp_path):
    chance = random.Random(7)
    data = archive.read_bytes()
    with tarfile.open(archive) as opened:
        inside = [
            (member.offset_data, member.offset_data + member.size)
            for member in opened
            if member.name != MANIFEST
        ]
    for number in range(40):
        start, end = chance.choice(inside)
        place = chance.randrange(start, end)
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{number}.tar"
        path.write_bytes(damaged)
        assert "was changed: it is not what its manifest says" in refused(
            path, tmp_path / "new.duckdb"
        )
        path.unlink()


@pytest.mark.parametrize("data", [b"", b"dear diary\n" * 99, b"\0" * 4096, b"\x1f\x8b" + b"x" * 99])
def test_what_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "some.tar"
    path.write_bytes(data)
    assert "no backup of a store" in refused(path, tmp_path / "new.duckdb")


def test_an_archive_that_is_not_there_is_a_sentence(tmp_path):
    said = refused(tmp_path / "nothing.tar", tmp_path / "new.duckdb")
    assert said.endswith("nothing.tar cannot be read: No such file or directory")


def rewrite(source: Path, target: Path, change) -> Path:
    """The archive again, its members and its manifest as `change` makes them."""
    with tarfile.open(source) as archive:
        members = [(one, archive.extractfile(one).read()) for one in archive]
    manifest = json.loads(members.pop()[1])
    change(members, manifest)
    with tarfile.open(target, "w") as archive:
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        for facts, data in [*members, (tarfile.TarInfo(MANIFEST), text)]:
            facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data))
    return target


def add(name: str, data: bytes = b"{}\n", kind: bytes = tarfile.REGTYPE, link: str = ""):
    """A member more, which the manifest knows too."""

    def change(members, manifest):
        facts = tarfile.TarInfo(name)
        facts.type, facts.linkname = kind, link
        members.append((facts, b"" if link or kind == tarfile.DIRTYPE else data))
        digest = hashlib.sha256(data).hexdigest()
        one = {"name": name, "size": len(data), "sha256": digest, "modified_ns": 0}
        manifest["files"].append(one)

    return change


@pytest.mark.parametrize(
    "change",
    [
        add("../evil.jsonl"),
        add("/tmp/evil.jsonl"),
        add("studies/../evil.jsonl"),
        add("studies/../../evil.jsonl"),
        add("studies/./evil.jsonl"),
        add("studies/a/b/c.jsonl"),
        add("studies/a\\b.jsonl"),
        add("studies//evil.jsonl"),
        add("studies/s-1/evil.so"),
        add("studies/s-1/study.jsonl"),
        add("evil.py"),
        add("store.duckdb.wal"),
        add("studies/s-1/link.jsonl", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        add("studies/s-1/link.jsonl", kind=tarfile.LNKTYPE, link=DATABASE),
        add("studies/folder.jsonl", kind=tarfile.DIRTYPE),
        add("studies/pipe.jsonl", kind=tarfile.FIFOTYPE),
        add("studies/device.jsonl", kind=tarfile.CHRTYPE),
        add("studies/" + "x" * 300 + ".jsonl"),
    ],
)
def test_no_member_leaves_its_place(archive, tmp_path, change):
    hostile = rewrite(archive, tmp_path / "hostile.tar", change)
    place = tmp_path / "inner" / "place.duckdb"
    before = whole(tmp_path)

    said = refused(hostile, place)

    assert "hostile.tar was not restored: it holds" in said or "cannot be re" in said
    assert whole(tmp_path) == before


def test_two_members_may_not_share_a_path(archive, tmp_path):
    def change(members, manifest):
        add("studies/x.jsonl")(members, manifest)
        add("studies/x.jsonl/y.jsonl")(members, manifest)

    hostile = rewrite(archive, tmp_path / "hostile.tar", change)
    assert "hostile.tar cannot be re" in refused(hostile, tmp_path / "inner" / "place.duckdb")


def without_database(members, manifest):
    del members[0]


def unnamed(members, manifest):
    del manifest["files"][1]


def newer_format(members, manifest):
    manifest["format"] = 2


def newer_schema(members, manifest):
    manifest["schema"] = "9999"


def odd_schema(members, manifest):
    manifest["schema"] = "*"


def odd_table(members, manifest):
    manifest["rows"]["events; drop table events"] = 1


def other_count(members, manifest):
    manifest["rows"]["events"] += 1


def no_files(members, manifest):
    del manifest["files"]


def odd_time(members, manifest):
    manifest["files"][1]["modified_ns"] = "noon"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_database, f"{DATABASE} is missing"),
        (unnamed, "is not in its manifest"),
        (newer_format, "its format is 2: it needs a newer Trimtab"),
        (newer_schema, "its schema '9999' is not known: it needs a newer Trimtab"),
        (odd_schema, "its manifest cannot be read"),
        (odd_table, "its manifest cannot be read"),
        (other_count, "does not hold the rows that its manifest counts"),
        (no_files, "its manifest cannot be read"),
        (odd_time, "its manifest cannot be read"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(archive, tmp_path, change, said):
    changed = rewrite(archive, tmp_path / "changed.tar", change)
    assert said in refused(changed, tmp_path / "inner" / "place.duckdb")


def test_only_the_wanted_member_is_extracted(archive, tmp_path):
    (tmp_path / "out").mkdir()

    unpack(archive, tmp_path / "out", only=DATABASE)

    assert sorted(whole(tmp_path / "out")) == [DATABASE]


def test_every_backup_under_eight_writers_is_a_prefix_of_what_was_acknowledged(capsys):
    assert backup.run(count=2, writers=8)
    assert "0 differences" in capsys.readouterr().out
