"""The calibrator's child: progress, result, and every way to fail ends as a sentence."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from app.jobs.calibrator import Calibrator, get_calibrator

SECONDS = 60.0


def child(code: str) -> tuple[str, ...]:
    """A child that runs this instead of a calibration."""
    return (sys.executable, "-c", f"import json, os, sys, time\n{code}")


def test_a_result_ends_without_error_and_is_counted() -> None:
    code = (
        "print(json.dumps({'stage': 'bandwidth', 'share': 0.4}), flush=True)\n"
        "print('noise', flush=True)\nprint('[1]')\nprint(json.dumps({'calibration': {}}))"
    )
    one = Calibrator(child(code))
    assert one.start()
    done = one.wait(SECONDS)
    assert (done.running, done.error, done.finished) == (False, "", 1)
    assert one.start()
    assert one.wait(SECONDS).finished == 2


def test_progress_is_told_and_only_one_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = (
        "print(json.dumps({'stage': 'peaks', 'share': 7}), flush=True)\n"
        f"open({str(gate)!r}).read()\nprint(json.dumps({{'calibration': {{}}}}))"
    )
    one = Calibrator(child(code))
    assert one.start()
    assert not one.start()
    with gate.open("w"):
        # The child opened the other end, so its first line was written before.
        pass
    assert one.wait(SECONDS).finished == 1


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("print(json.dumps({'error': 'no memory'}))", "no memory"),
        ("sys.exit(3)", "ended with code 3"),
        ("os.abort()", "died by SIGABRT"),
        ("os.kill(os.getpid(), 9)", "died by SIGKILL"),
        ("print('[' * 100000)", "ended with code 0"),
    ],
)
def test_every_way_to_fail_is_a_sentence(code: str, sentence: str) -> None:
    one = Calibrator(child(code))
    one.start()
    done = one.wait(SECONDS)
    assert sentence in done.error
    assert (done.running, done.finished) == (False, 0)
    assert one.start()
    one.wait(SECONDS)


def test_a_child_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = (
        "import subprocess\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(told)!r}, 'w').write(str(other.pid))\ntime.sleep(600)"
    )
    one = Calibrator(child(code), limit_s=3.0)
    one.start()
    done = one.wait(SECONDS)
    assert "longer than 3 s" in done.error
    # A killed process needs a core to die on.
    deadline = time.monotonic() + SECONDS
    while lives(int(told.read_text())) and time.monotonic() < deadline:
        os.sched_yield()
    assert not lives(int(told.read_text()))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_cancelling_ends_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    one = Calibrator(child(f"open({str(gate)!r}, 'w').close()\ntime.sleep(600)"))
    one.start()
    gate.open().close()
    one.cancel()
    assert "cancelled" in one.wait(SECONDS).error


def test_a_command_that_does_not_exist_is_a_sentence() -> None:
    one = Calibrator(("/no/such/program",))
    one.start()
    assert "cannot start" in one.wait(SECONDS).error


def test_all_threads_share_one() -> None:
    found: list[Calibrator] = []
    threads = [threading.Thread(target=lambda: found.append(get_calibrator())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
