"""Archives of journals: what is taken out of them, and what is refused."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from app import archives
from app.archives import unpacked
from app.cli import main as cli
from core.errors import BadInput


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def listed(place: Path) -> dict[str, bytes]:
    with unpacked(place) as folder:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def test_a_folder_of_studies_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "s-1").mkdir()
    (tmp_path / "s-1" / "study.jsonl").write_text("x")
    tar(tmp_path / archives.PACKED, ("s-2/study.jsonl", b"y"))
    with unpacked(tmp_path) as folder:
        assert folder == tmp_path
    with unpacked(tmp_path / "none") as folder:
        assert folder == tmp_path / "none"


def test_journals_are_taken_and_nothing_else(tmp_path: Path) -> None:
    members = (
        ("box.json", b"{}"),
        ("out/studies/s-1/study.jsonl", b"a"),
        ("out/studies/s-1/t-1-1.jsonl", b"b"),
        ("out/studies/s-1/t-1-1.log", b"c"),
        ("../s-1/../../etc/passwd", b"d"),
        ("s-1/t-1-1.jsonl.exe", b"e"),
    )
    wanted = {"s-1/study.jsonl": b"a", "s-1/t-1-1.jsonl": b"b", "s-1/t-1-1.log": b"c"}
    assert listed(tar(tmp_path / "x.tar.gz", *members)) == wanted
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    assert listed(tmp_path / "x.zip") == wanted


def test_a_name_that_leads_out_of_the_folder_stays_in_it(tmp_path: Path) -> None:
    archive = tar(
        tmp_path / "x.tar.gz", ("../../s-1/study.jsonl", b"a"), ("/s-2/study.jsonl", b"b")
    )
    assert set(listed(archive)) == {"s-1/study.jsonl"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("s-1/study.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(BadInput, match="holds no journals"):
        listed(path)


def test_a_folder_with_the_archive_of_a_run_is_unpacked(tmp_path: Path) -> None:
    tar(tmp_path / archives.PACKED, ("s-1/study.jsonl", b"a"))
    (tmp_path / "summary.json").write_text("{}")
    assert listed(tmp_path) == {"s-1/study.jsonl": b"a"}


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.tar\.gz"):
        listed(path)


def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar.gz", ("s-1/study.jsonl", bytes(range(256)) * 99))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"x\.tar\.gz"):
        listed(path)


def test_sizes_and_counts_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = tar(tmp_path / "a.tar.gz", ("s-1/study.jsonl", b"a"), ("x/s-1/study.jsonl", b"b"))
    with pytest.raises(BadInput, match="twice"):
        listed(twice)
    path = tar(tmp_path / "b.tar.gz", *((f"s-{place}/study.jsonl", b"a") for place in range(4)))
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(BadInput, match="more than 3 journals"):
        listed(path)
    monkeypatch.setattr(archives, "MOST_BYTES", 3)
    with pytest.raises(BadInput, match="more than 0 MiB"):
        listed(tar(tmp_path / "c.tar.gz", ("padding", b"0123456789")))


@pytest.mark.parametrize("kind", ["x.tar.gz", "x.zip"])
def test_damaged_archives_are_sentences_and_nothing_else(tmp_path: Path, kind: str) -> None:
    path, chance = tmp_path / kind, random.Random(5)
    members = [(f"s-{place}/study.jsonl", bytes(range(99))) for place in range(3)]
    tar(path, *members)
    if kind == "x.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice((None, chance.randrange(len(damaged))))])
        with contextlib.suppress(BadInput):
            listed(path)


def test_what_is_wrong_in_an_archive_is_said_of_it_and_of_no_temporary_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tar(tmp_path / "x.tar.gz", ("out/s-1/study.jsonl", b"nothing\n"))
    assert cli.main(["ingest", str(archive), "--store", str(tmp_path / "store.duckdb")]) == 2
    assert f"trimtab: {archive}: s-1/study.jsonl, line 1 does not say" in capsys.readouterr().err
