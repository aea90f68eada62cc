"""A store that may not be written is read as it lies there, and says why nothing else goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.cli.main import main
from app.services import open_kept
from core.errors import StoreError
from core.journal.events import event, study_created, trial_queued
from core.journal.journal import Journal
from core.report import Report
from store import open_store
from store.health.recovery import close_sealed
from tests.store import release


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was changed, and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def kept(tmp_path: Path, make) -> Path:
    """A closed store with one study and its journal."""
    home = tmp_path / "home"
    home.mkdir()
    file = home / "trimtab.duckdb"
    study = make.study()
    trial = make.trial(study, "t-1", "weight-int8")
    told = [study_created(study), trial_queued(trial)]
    told += [event("trial-ended", "s-1", "t-1", attempt=1, state="failed", reason="no time")]
    told += [event("study-state", "s-1", state="done", reason="all trials ended")]
    with Journal(home / "trimtab.duckdb.studies" / "s-1" / "study.jsonl") as journal:
        journal.extend(told)
    store, folder, _ = open_kept(str(file))
    close_sealed(store, str(file), folder)
    return file


@pytest.fixture
def locked(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same store where nothing may be written, whoever asks: root may write what it likes."""
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: mode != os.W_OK and real(path, mode, **more)
    )
    return kept


def run(capsys, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_everything_that_reads_works_and_changes_nothing(locked, capsys, tmp_path):
    before = content(locked.parent)
    store = ("--store", str(locked))
    code, out, err = run(capsys, "studies", *store)
    assert (code, "s-1" in out) == (0, True)
    assert f"{locked} can only be read, because {locked} may not be written" in err
    for words in (["show", "s-1"], ["show", "s-1", "--json"], ["report", "list"]):
        assert run(capsys, *words, *store)[0] == 0
    archive = tmp_path / "copy.trimtab"
    assert run(capsys, "backup", str(archive), *store)[0] == 0
    assert archive.stat().st_size > 1000
    assert run(capsys, "export-parquet", str(tmp_path / "tables"), *store)[0] == 0
    assert content(locked.parent) == before


@pytest.mark.parametrize("words", [("cancel", "s-1"), ("resume", "s-1")])
def test_everything_that_writes_says_why_not(words, locked, capsys):
    before = content(locked.parent)
    code, _, err = run(capsys, *words, "--store", str(locked))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"trimtab: the store {locked} can only be read, because")
    assert content(locked.parent) == before


def test_the_store_itself_takes_nothing_in(locked, make):
    store = open_store(str(locked))
    with pytest.raises(StoreError, match="copy the file and the folder"):
        store.ingest(make.whole("s-2")[1])
    with pytest.raises(StoreError, match="copy the file and the folder"):
        store.save_report(Report("r-1", 1, "T", make.study(), (), "", "2026-11-21T10:00:00.000"))
    assert store.ingest([]) == 0
    assert [one.id for one in store.studies()] == ["s-1"]
    store.close()


def test_what_the_journals_say_since_then_is_named(kept, make, monkeypatch):
    with Journal(kept.parent / "trimtab.duckdb.studies" / "s-1" / "study.jsonl") as journal:
        journal.append(event("study-state", "s-1", state="paused", reason="later"))
    monkeypatch.setattr(os, "access", lambda path, mode, **more: mode != os.W_OK)
    store, _, notices = open_kept(str(kept))
    assert len(notices) == 2
    assert "s-1/study.jsonl" in notices[1]
    assert store.study("s-1").state == "done"
    store.close()


def test_an_older_store_must_be_copied_first(tmp_path, monkeypatch):
    release.write("0001", tmp_path / "old.duckdb")
    monkeypatch.setattr(os, "access", lambda path, mode, **more: mode != os.W_OK)
    with pytest.raises(StoreError, match="newest schema"):
        open_store(str(tmp_path / "old.duckdb"))
    assert [path.name for path in tmp_path.iterdir()] == ["old.duckdb"]


def _as_nobody(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Once with an empty store before: nobody may be unable to read the interpreter's own modules.
    script = (
        "import os, sys, tempfile\nsys.path[:0] = os.environ['PLACES'].split(os.pathsep)\n"
        "from app.cli.main import main\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    main([*sys.argv[1:-1], folder + '/empty.duckdb'])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    places = {"PLACES": os.pathsep.join(filter(None, sys.path)), "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", script, *words, "--store", str(file)],
        capture_output=True, encoding="utf-8", check=False, cwd="/", env=os.environ | places,
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reads_what_is_not_his(kept):
    # pytest's own folders let nobody in.
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(kept.parent, folder, dirs_exist_ok=True)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o444)
        read = _as_nobody(Path(folder) / kept.name, "studies")
        written = _as_nobody(Path(folder) / kept.name, "cancel", "s-1")
    assert (read.returncode, "s-1" in read.stdout) == (0, True), read.stderr
    assert written.returncode == 2
    assert "can only be read, because" in written.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_mounted_copy_is_read(kept, tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    script = (
        f"mount --bind '{kept.parent}' '{place}' && mount -o remount,ro,bind '{place}' || exit 77\n"
        f"'{sys.executable}' -m app.cli show s-1 --store '{place / kept.name}'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr
    assert "can only be read" in done.stderr
