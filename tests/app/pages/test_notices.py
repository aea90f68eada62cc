"""What was damaged or lost is said where people look: on every page, and on standard error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import services
from app.cli import main as cli
from app.services import open_services, studies_folder
from core import disk
from core.catalogue import models, workloads
from core.errors import BadInput, TrimtabError
from core.journal import events
from core.journal.journal import Journal, read
from core.machine import targets
from core.plan import Case
from core.priorities import Priorities
from core.study import Study
from store import open_store
from tests.evidence.jobs import kills

HERE = Path(__file__).resolve().parent
MAIN = HERE.parents[2] / "app" / "main.py"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with one study whose journal lies beside it."""
    path = tmp_path / "store.duckdb"
    open_store(str(path)).close()
    case = Case(models.resolve("pycode-small"), targets.resolve("local"), workloads.resolve("chat"))
    study = Study("s-1", case, Priorities(), created_at="2026-11-21T10:00:00.000")
    with Journal(studies_folder(str(path)) / "s-1" / "study.jsonl") as journal:
        journal.extend(
            [
                events.study_created(study),
                events.event("study-state", "s-1", state="done", reason=""),
            ]
        )
    opened = open_services(str(path))
    assert opened.notices == ()
    opened.close()
    return path


def spoil(file: Path) -> None:
    file.write_bytes(b"dear diary\n" * 500)


def test_services_name_the_damage_and_hold_what_was_there(file: Path) -> None:
    spoil(file)
    opened = open_services(str(file))
    study = opened.store.study("s-1")
    opened.close()
    assert study is not None
    assert study.state == "done"
    (notice,) = opened.notices
    assert "could not be read and was moved to store.duckdb.damaged-1" in notice


def test_the_command_line_says_it_once_on_standard_error(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(file)
    assert cli.main(["studies", "--store", str(file)]) == 0
    said = capsys.readouterr()
    assert "s-1" in said.out
    assert said.err.startswith(f"trimtab: the store {file} could not be read and was moved to ")
    assert said.err.count("\n") == 1
    assert cli.main(["studies", "--store", str(file)]) == 0
    assert capsys.readouterr().err == ""


def test_doctor_checks_and_rebuilds_the_store(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--check-store", "--store", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("1 study and 1 journal in ")
    assert "all agree" in said.out
    path = studies_folder(str(file)) / "s-1" / "study.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(lines[0] + b"\n" + lines[1].replace(b"done", b"busy") + b"\n")
    assert cli.main(["doctor", "--check-store", "--store", str(file)]) == 1
    said = capsys.readouterr()
    assert "line 2 (study-state of study s-1) was changed or cut" in said.err
    assert "the store still holds what was said there" in said.err
    assert cli.main(["doctor", "--rebuild-store", "--store", str(file)]) == 0
    said = capsys.readouterr()
    assert "the old store is kept as " in said.err
    assert "found before: journal s-1/study.jsonl, line 2" in said.out
    assert file.with_name("store.duckdb.damaged-1").exists()


def test_every_page_shows_what_was_found(
    opened: services.Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tuple(f"journal s-{number}/study.jsonl is *missing*; it is lost" for number in range(7))
    monkeypatch.setattr(services, "get_services", lambda: replace(opened, notices=told))
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    (shown,) = [one.value for one in at.warning]
    assert "is \\*missing\\*; it is lost" in shown
    assert "and 2 more" in shown
    assert "trimtab doctor --check-store" in shown


class Failing(disk.System):
    """Each write, sync and rename is counted; the one with the number `fails` does not happen, and
    a write that fails leaves a half behind, as a full disk does.
    """

    def __init__(self, fails: int) -> None:
        self.fails, self.calls = fails, 0

    def _count(self) -> bool:
        self.calls += 1
        return self.calls == self.fails

    def write(self, handle: int, data: bytes) -> int:
        if self._count():
            super().write(handle, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return super().write(handle, data)

    def sync(self, handle: int) -> None:
        if self._count():
            raise OSError(5, "Input/output error")
        super().sync(handle)

    def rename(self, old: Path, new: Path) -> None:
        if self._count():
            raise OSError(30, "Read-only file system")
        super().rename(old, new)


def test_whichever_write_fails_there_is_a_sentence_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """R3: the first call fails, then the second, until nothing fails any more."""
    kept = (
        file.read_bytes(),
        {
            path.relative_to(tmp_path): path.read_bytes()
            for path in studies_folder(str(file)).rglob("*")
            if path.is_file()
        },
    )
    for fails in range(1, 200):
        for path in tmp_path.glob("store.duckdb*"):
            if path.is_file():
                path.unlink()
        for name, data in kept[1].items():
            (tmp_path / name).write_bytes(data)
        journal = studies_folder(str(file)) / "s-1" / "study.jsonl"
        for path in studies_folder(str(file)).rglob("*"):
            if path.is_file() and path.relative_to(tmp_path) not in kept[1]:
                path.unlink()
        spoil(file)
        failing = Failing(fails)
        acknowledged = len(read(journal)[0])
        with monkeypatch.context() as patched:
            patched.setattr(disk, "system", failing)
            said = []
            try:
                opened = open_services(str(file))
                try:
                    opened.jobs.cancel("s-1")
                    acknowledged += 1
                finally:
                    opened.close()
            except BadInput:
                raise
            except (OSError, TrimtabError) as error:
                said.append(str(error))
        assert all(one and "\n" not in one for one in said)
        again = open_services(str(file))
        study = again.store.study("s-1")
        again.close()
        assert study is not None
        assert study.state in (("cancelled",) if not said else ("done", "cancelled"))
        assert len(read(journal)[0]) >= acknowledged
        if failing.calls < fails:
            assert said == []
            break
    else:
        pytest.fail("it never ran clean")
    assert fails > 8


def test_a_small_count_of_kills_loses_nothing(tmp_path: Path) -> None:
    tally = kills.kill_often(tmp_path, 3, seed=5)
    assert tally.faults == []
    assert sum(tally.kills.values()) == 3
    assert tally.acknowledged > 0
