"""The part `tests` of a run on a GPU: files dealt to processes, and what is kept of each."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.evidence.gpu import gpu_tests, poison
from tests.evidence.gpu.place import ROOT


def test_files_with_tests_for_a_gpu_are_found_and_dealt() -> None:
    names = gpu_tests.files()
    assert "tests/kernels/linear_lowbit/test_gpu.py" in names
    groups = gpu_tests.grouped(names, 3)
    assert len(groups) == 3
    assert sorted(name for group in groups for name in group) == names


def test_a_process_of_tests_that_crashed_is_an_error_beside_what_it_had_ended(
    tmp_path: Path,
) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(
        b"tests/kernels/test_made_up.py::test_one[1-2] PASSED  [ 25%]\n"
        b"tests/kernels/test_made_up.py::test_two FAILED       [ 50%]\n"
        b"tests/kernels/test_made_up.py::test_three SKIPPED (no) [ 75%]\n"
        b"tests/kernels/test_made_up.py::test_four \x1b[31mCUDA error\n"
    )
    suite = gpu_tests._unfinished(["tests/kernels/test_made_up.py"], log, -11)
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    assert suite[0].attrib == {"classname": "tests.kernels.test_made_up", "name": "test_one[1-2]"}
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("message") == "the process ended with status -11"
    assert (error.text or "").endswith("[31mCUDA error\n")


def test_which_blocks_are_fastest_is_not_kept_from_tests_in_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    for name in ("kernel.cubin", "few_rows.autotune.json"):
        path = tmp_path / "triton" / "ABC" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    environment = gpu_tests._environment(tmp_path)
    assert environment["XDG_CACHE_HOME"] == str(tmp_path / "cache")
    assert (tmp_path / "cache" / "trimtab" / "kernels").is_symlink()
    gpu_tests._forget_tuning()
    assert [path.name for path in (tmp_path / "triton" / "ABC").iterdir()] == ["kernel.cubin"]


BREAKS = """
import pytest, torch
pytestmark = pytest.mark.gpu

def test_before():
    pass

def test_breaks():
    assert False

@pytest.mark.parametrize("size", [1, 2])
def test_behind(size):
    pass
"""
PLUGIN = """
import tests.evidence.gpu.poison as poison
import os
poison.alive = lambda: "breaks" not in os.environ.get("PYTEST_CURRENT_TEST", poison._failed[-1])
"""


def test_another_process_goes_on_behind_a_test_that_broke_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_broken.py").write_text(BREAKS)
    (tmp_path / "conftest.py").write_text(PLUGIN)
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Nothing of this project's settings: the folder is a project of its own.
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu']\n")
    group = gpu_tests.Group(["test_broken.py"], tmp_path / "0")
    deadline = time.monotonic() + 60
    while group.go_on():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cases = [case for suite in group.suites() for case in suite.iter("testcase")]
    outcomes = [(case.get("name"), case.find("failure") is not None) for case in cases]
    assert outcomes == [
        ("test_before", False),
        ("test_breaks", True),
        ("test_behind[1]", False),
        ("test_behind[2]", False),
    ]
    assert len(group.logs) == 2


def test_a_device_that_is_not_there_is_not_broken() -> None:
    assert poison.alive()
