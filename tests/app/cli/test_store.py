"""backup, restore and export-parquet as a user meets them: alone, beside a dashboard that holds the
store, and beside a program that only holds it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from core import techniques
from core.journal import events
from core.journal.events import Event
from core.journal.journal import Journal
from core.measurement import Measurement, unavailable
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.priorities import Priorities
from core.report import Report
from core.study import Study, Trial
from core.target import Target
from core.workload import Workload
from store import TrialFilter, open_store

ROOT = Path(__file__).resolve().parents[3]
CASE = Case(
    Model("pycode", "llama", "bundled", "r1", DecoderShape(64, 2, 4, 2, 16, 176, 512, 256)),
    Target("local", "This machine", "cpu", "local", 2**33, 2e10, (("fp32", 1e11),), local=True),
    Workload("chat", "Chat", "text", 128, 64),
)


def told() -> list[Event]:
    """A study of one finished trial."""
    study = Study("s-1", CASE, Priorities(), created_at="2026-11-21T10:00:00.000")
    trial = Trial("t-1", "s-1", Plan(CASE, (techniques.parse("weight-int8"),)))
    taken = Measurement("ttft_s", (0.1, 1 / 3, 5e-324), "s", "measured", 'it\'s "timed"', "env-1")
    return [
        events.study_created(study),
        events.trial_queued(trial),
        events.event("trial-started", "s-1", "t-1", attempt=1, pid=7),
        events.MeasurementTaken(1, taken).event("s-1", "t-1"),
        events.MeasurementTaken(1, unavailable("energy_j_per_token", "J", "no counter")).event(
            "s-1", "t-1"
        ),
        events.event("trial-ended", "s-1", "t-1", attempt=1, state="done", reason=""),
        events.event("study-state", "s-1", state="done", reason=""),
    ]


def trimtab(*words: str | Path, store: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, words), "--store", str(store)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A store with a study, its journal and a report."""
    path = tmp_path / "kept.duckdb"
    with Journal(tmp_path / "kept.duckdb.studies" / "s-1" / "study.jsonl") as journal:
        journal.extend(told_ := told())
    store = open_store(str(path))
    store.ingest(told_)
    study = store.study("s-1")
    assert study is not None
    store.save_report(Report("r-1", 1, "One", study, ("t-1",), "t-1", "2026-11-21T10:00:00.000"))
    store.close()
    return path


@pytest.fixture
def served(kept: Path) -> Iterator[tuple[Path, int, int]]:
    """The store behind a dashboard: its file, the port and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--store", str(kept)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield kept, port, process.pid
    finally:
        process.kill()
        process.wait()


def same(place: Path, kept: Path) -> None:
    """Both stores answer alike."""
    stores = [open_store(str(path)) for path in (place, kept)]
    assert stores[0].study("s-1") == stores[1].study("s-1") is not None
    assert stores[0].reports() == stores[1].reports() != ()
    assert stores[0].count_trials(TrialFilter()) == 1
    for store in stores:
        store.close()
    journal = Path("s-1") / "study.jsonl"
    folders = [path.with_name(path.name + ".studies") for path in (place, kept)]
    assert (folders[0] / journal).read_bytes() == (folders[1] / journal).read_bytes()


def test_a_backup_is_restored_elsewhere(kept: Path, tmp_path: Path) -> None:
    archive, place = tmp_path / "b.tar", tmp_path / "other" / "new.duckdb"

    made = trimtab("backup", archive, store=kept)
    put = trimtab("restore", archive, store=place)

    assert (made.returncode, made.stdout) == (0, "")
    assert made.stderr.startswith(f"wrote {archive} (")
    assert "1 studies, 2 measurements, 1 report versions" in made.stderr
    assert (put.returncode, put.stdout) == (0, "")
    assert put.stderr.startswith(f"restored {place}: 1 studies")
    same(place, kept)
    again = trimtab("restore", archive, store=place)
    assert again.returncode == 2
    assert again.stderr.startswith(f"trimtab: the store {place} is not empty")


def test_a_dashboard_makes_the_copies_of_its_own_store(
    served: tuple[Path, int, int], tmp_path: Path
) -> None:
    kept, port, pid = served

    made = trimtab("backup", tmp_path / "b.tar", store=kept)
    exported = trimtab("export-parquet", tmp_path / "tables", store=kept)
    # Whom the port lets read the pages, it does not let take the store.
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/backup", headers={"X-Trimtab": "1"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        page = answer.read()

    assert made.returncode == 0, made.stderr
    assert made.stderr.endswith(f"made by the dashboard (PID {pid})\n")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "tables" / "measurements.parquet").is_file()
    assert page.lstrip().startswith(b"<!")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert trimtab("restore", tmp_path / "b.tar", store=tmp_path / "new.duckdb").returncode == 0
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    same(tmp_path / "new.duckdb", kept)


def test_a_program_that_is_no_dashboard_is_named(kept: Path, tmp_path: Path) -> None:
    store = open_store(str(kept))
    made = trimtab("backup", tmp_path / "b.tar", store=kept)
    store.close()

    assert made.returncode == 2
    assert made.stderr == (
        f"trimtab: the store {kept} is in use by PID {os.getpid()}, which is no dashboard that "
        "could make a copy of it: wait until that process ends, or stop it\n"
    )
    assert not (tmp_path / "b.tar").exists()


def test_parquet_keeps_rows_and_types(kept: Path, tmp_path: Path) -> None:
    done = trimtab("export-parquet", tmp_path / "a b's" / "tables", store=kept)

    assert done.returncode == 0, done.stderr
    folder = tmp_path / "a b's" / "tables"
    with duckdb.connect(str(kept), read_only=True) as store, duckdb.connect() as other:
        names = [row[0] for row in store.execute("select name from (show tables)").fetchall()]
        names.remove("alembic_version")
        assert sorted(path.stem for path in folder.iterdir()) == sorted(names)
        for name in names:
            query = f"select * from {name} order by all"
            found = other.read_parquet(str(folder / f"{name}.parquet"))
            rows = store.execute(query)
            kinds = [str(one[1]) for one in rows.description or ()]
            assert sorted(map(repr, found.fetchall())) == sorted(map(repr, rows.fetchall()))
            assert [str(kind) for kind in found.types] == kinds, name
    again = trimtab("export-parquet", folder, store=kept)
    assert again.returncode == 2
    assert "is not empty: name a new one" in again.stderr


@pytest.mark.parametrize(
    ("words", "store", "said"),
    [
        (("backup", "b.tar"), "memory:", "a store in memory keeps nothing"),
        (("backup", "b.tar"), "postgresql://u@h/d", "use pg_dump"),
        (("restore", "b.tar"), "postgresql://u@h/d", "a backup is restored to a file"),
        (("restore", "nothing.tar"), "{}/new.duckdb", "nothing.tar cannot be read: No such file"),
        (("backup", "{}/no/folder/b.tar"), "{}/new.duckdb", "cannot be written: No such file"),
        (("export-parquet", "out"), "memory:", "a store in memory keeps nothing"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    words: tuple[str, ...],
    store: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from app.cli import main as cli

    given = [word.format(tmp_path) for word in (*words, "--store", store)]
    assert cli.main(given) == 2
    captured = capsys.readouterr()
    assert said in captured.err or "driver that is not installed" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
