"""The part `tests` of a run on a GPU: files dealt to processes, and what is kept of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence.gpu import gpu_tests


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
