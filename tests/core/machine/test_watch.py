"""Who else uses the machine: against the kernel's own files, recorded and real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.machine import readers, watch


def tasks(folder: Path, *waits_ns: int) -> Path:
    for number, wait in enumerate(waits_ns):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "schedstat").write_text(f"123456 {wait} 7\n")
    return folder


def stat(path: Path, user: int, steal: int) -> Path:
    path.write_text(f"cpu  {user} 20 30 1000 5 1 2 {steal} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    return path


def test_waiting_is_that_of_all_threads_and_what_the_host_stole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_TASKS", tasks(tmp_path / "task", 1_500_000_000, 250_000_000))
    stat(tmp_path / "stat", 100, 50)
    monkeypatch.setattr(readers, "PROC", tmp_path)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert watch.waited_seconds() == pytest.approx(1.75 + 0.5)


@pytest.mark.parametrize("text", ["", "garbage", "cpu  1 2"])
def test_a_system_that_does_not_tell_is_unknown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_TASKS", tasks(tmp_path / "task", 1))
    (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(readers, "PROC", tmp_path)
    assert watch.waited_seconds() is None
    assert watch.others_cores(0.0) is None
    monkeypatch.setattr(watch, "_TASKS", tmp_path / "absent")
    assert watch.waited_seconds() is None


def test_cores_of_others_are_what_was_busy_less_what_we_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat(tmp_path / "stat", 1000, 0)
    monkeypatch.setattr(readers, "PROC", tmp_path)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    clock = iter((0.0, 2.0))
    own = iter((5.0, 6.0))
    monkeypatch.setattr(watch.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(watch.time, "process_time", lambda: next(own))
    # In two seconds the cores were busy for four, one of them for us.
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: stat(tmp_path / "stat", 1400, 0))
    assert watch.others_cores(2.0) == pytest.approx(1.5)


def test_settling_ends_when_the_machine_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter((1.5, 0.8, 0.02))
    monkeypatch.setattr(watch, "others_cores", lambda: next(busy))
    found = watch.settle(1e9)
    assert (found.cores, found.busy) == (0.02, False)


def test_settling_gives_up_and_says_that_others_were_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "others_cores", lambda: 1.5)
    found = watch.settle(0.0)
    assert (found.cores, found.busy) == (1.5, True)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the kernel keeps no such books")
def test_a_process_that_shares_its_core_is_seen_waiting() -> None:
    # Three spinning processes on one core wait for each other.
    program = (
        "import os, threading, time\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from core.machine.watch import waited_seconds\n"
        "children = []\n"
        "for _ in range(2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        while True: pass\n"
        "    children.append(pid)\n"
        "before = waited_seconds()\n"
        "end = time.perf_counter() + 0.4\n"
        "while time.perf_counter() < end: pass\n"
        "print(waited_seconds() - before)\n"
        "for pid in children: os.kill(pid, 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) > 0.1
