"""The run on a GPU: parts that crash, hang or exit stop no others, and the results stay whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.evidence.gpu import results, schedule
from tests.evidence.gpu.parts import CLOSING, MODULES, parts
from tests.evidence.gpu.place import REHEARSAL_SECONDS, ROOT, SECONDS, Place
from tests.evidence.gpu.schedule import Outcome, Part

SCRIPT = ROOT / "tests" / "evidence" / "gpu" / "run.sh"


def short(name: str, program: str, seconds: float = 1.0, most: float = 1.0) -> Part:
    return Part(name, (sys.executable, "-S", "-c", program), seconds, most)


def run_all(wanted: Sequence[Part], seconds: float, folder: Path) -> dict[str, Outcome]:
    until = time.monotonic() + seconds
    outcomes = {one.name: one for one in schedule.run(wanted, until, folder)}
    assert list(outcomes) == [part.name for part in wanted]
    return outcomes


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return Place(tmp_path / "out", tmp_path / "work", time.monotonic() + 30, rehearsal=True)


def test_a_part_that_fails_crashes_or_hangs_stops_no_other(tmp_path: Path) -> None:
    hang = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    ended = run_all(
        [
            short("exits", "import sys; sys.exit(3)"),
            short("crashes", "import os; os.kill(os.getpid(), 11)"),
            short("hangs", hang),
            short("works", "print('here')"),
        ],
        20,
        tmp_path,
    )
    states = {name: (one.state, one.status) for name, one in ended.items()}
    assert states == {
        "exits": ("failed", 3),
        "crashes": ("crashed", -11),
        "hangs": ("stopped", -9),
        "works": ("done", 0),
    }
    assert 1.0 <= ended["hangs"].seconds < 3.0
    assert (tmp_path / "works.log").read_text() == "here\n"


def test_what_a_part_started_in_a_group_of_its_own_ends_with_it(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    run_all([short("starts", program, 2.0, 2.0)], 5, tmp_path)
    child = int((tmp_path / "starts.log").read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_time_that_a_part_does_not_use_goes_to_later_ones(tmp_path: Path) -> None:
    ended = run_all(
        [
            short("early", "pass", 2.0, 2.0),
            short("long", "import time; time.sleep(60)", 1.0, 60.0),
            short("last", "pass", 1.0, 1.5),
        ],
        4.0,
        tmp_path,
    )
    # One second is kept for the last: what the early one left belongs to the long one.
    assert 2.0 < ended["long"].limit < 3.0
    assert ended["last"].state == "done"
    assert 0.5 < ended["last"].limit < 1.0


def test_a_part_without_half_of_its_time_is_not_begun(tmp_path: Path) -> None:
    ended = run_all([short("late", "pass", 2.0, 4.0), short("small", "pass", 0.1)], 1.0, tmp_path)
    assert ended["late"] == Outcome("late", "not reached")
    assert ended["small"].state == "done"


def test_all_parts_with_what_closing_takes_fit_into_the_end_of_all() -> None:
    for rehearsal, seconds in ((False, SECONDS), (True, REHEARSAL_SECONDS)):
        wanted = parts(seconds, rehearsal)
        assert [part.name for part in wanted] == list(MODULES)
        assert sum(part.seconds for part in wanted) <= seconds * (1 - CLOSING)
        assert all(part.seconds <= part.most for part in wanted)
        shorter = parts(seconds / 10, rehearsal)
        assert [part.seconds for part in shorter] == pytest.approx(
            [part.seconds / 10 for part in wanted]
        )
    assert [part.name for part in parts(60.0, only=("energy",))] == ["energy"]
    with pytest.raises(ValueError, match="there is no part 'nonsense'; known are environment, "):
        parts(60.0, only=("nonsense",))


def test_every_part_broken_in_its_way_still_gives_a_summary_in_time(tmp_path: Path) -> None:
    ways = dict(zip(MODULES, ("hang", *("crash", "exit") * 3), strict=True))
    began = time.monotonic()
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "OUT": str(tmp_path / "results"),
            "PYTHON": sys.executable,
            "TRIMTAB_GPU_REHEARSAL": "1",
            "TRIMTAB_GPU_SECONDS": "40",
            "TRIMTAB_GPU_BREAK": ",".join(f"{name}:{way}" for name, way in ways.items()),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - began < 45
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["rehearsal"] is True
    wanted = {"hang": "stopped", "crash": "crashed", "exit": "failed"}
    assert {part["name"]: part["state"] for part in summary["parts"]} == {
        name: wanted[way] for name, way in ways.items()
    }
    assert "crashed (-11)" in done.stdout
    assert done.stdout.count("\n") >= 2 * len(MODULES)


def test_asked_to_end_it_lists_what_was_not_reached(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["bash", str(SCRIPT)],
        env=os.environ
        | {
            "OUT": str(tmp_path),
            "PYTHON": sys.executable,
            "TRIMTAB_GPU_REHEARSAL": "1",
            "TRIMTAB_GPU_BREAK": "environment:hang",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "log.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    told, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{'tests':<12}   0.0 s  not reached." in told
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["not_reached"] == list(MODULES)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ({"TRIMTAB_GPU_SECONDS": "soon"}, "'soon' is no whole number of seconds"),
        ({"TRIMTAB_GPU_PARTS": "tests,nonsense"}, "there is no part 'nonsense'; known are"),
    ],
)
def test_what_it_cannot_read_is_refused_in_a_sentence(
    variable: dict[str, str], told: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        env=os.environ | {"OUT": str(tmp_path), "PYTHON": sys.executable} | variable,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_results_are_whole_small_and_name_no_path_of_the_box(place: Place) -> None:
    results.write_json(place, "environment.json", {"where": f"{ROOT}/core", "with": sys.prefix})
    text = (place.out / "environment.json").read_text()
    assert json.loads(text)["rehearsal"] is True
    assert str(ROOT) not in text
    assert sys.prefix not in text
    results.add_json(place, "steps.json", "energy", {"watts": 3})
    results.add_json(place, "steps.json", "graph", {"ratio": 2})
    steps = json.loads((place.out / "steps.json").read_text())
    assert (steps["energy"], steps["graph"]) == ({"watts": 3}, {"ratio": 2})
    with pytest.raises(ValueError, match="17,000,000 bytes, 16,000,000 are taken"):
        results.write(place.out, "bench.json", bytes(17_000_000))
    assert sorted(path.name for path in place.out.iterdir()) == ["environment.json", "steps.json"]


def test_journals_logs_and_files_are_taken_as_far_as_they_are(place: Place) -> None:
    study = place.work / results.STUDIES / "s-1"
    study.mkdir(parents=True)
    (study / "t-1-1.jsonl").write_text("{}\n")
    (study / "t-1-1.log").write_text("what a library printed\n")
    (study / "t-2-1.jsonl").symlink_to("/etc/hostname")
    (study.parent / results.BOX).write_text("{}")
    logs = place.work / "logs"
    logs.mkdir()
    (logs / "bench.log").write_bytes(b"x" * 2_000_000 + b"the end")
    (place.work / "tests.xml").write_text("<testsuites/>")
    results.refresh(place, ["environment", "bench"])
    with tarfile.open(place.out / "journals.tar.gz") as archive:
        assert archive.getnames() == ["box.json", "s-1/t-1-1.jsonl", "rehearsal.txt"]
        assert {(entry.uid, entry.uname, entry.mtime) for entry in archive} == {(0, "", 0)}
    log = (place.out / "log.txt").read_text()
    assert log.startswith("== bench\n... 500,007 bytes before this\n")
    assert "the end\n== t-1-1\nwhat a library printed\n" in log
    assert (place.out / "tests.xml").read_text() == "<testsuites/>"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) for path in place.out.iterdir())
