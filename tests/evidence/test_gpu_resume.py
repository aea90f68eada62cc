"""The benchmark of the GPU's kernels goes on behind a case that broke the device or its process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evidence.__main__ import parse
from tests.evidence.gpu import bench
from tests.evidence.gpu.place import Place
from tests.evidence.kernels import gpu, gpu_grid, gpu_steps

CASES = [gpu_grid.Case("int4-g32", 48, 64, rows) for rows in (1, 8, 64)]


class Breaking:
    """A bench whose second case breaks the device; it times nothing."""

    def __init__(self, device: str, rehearsal: bool) -> None:
        self.broken = False

    def rows(self, case: gpu_grid.Case) -> Iterator[dict[str, Any]]:
        if case.rows == 8:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        yield {**vars(case), "beside": case.format, "kernel": "triton", "right": True}


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_GPU_REHEARSAL", "1")
    monkeypatch.setattr(gpu_grid, "cases", lambda rehearsal: CASES)
    monkeypatch.setattr(gpu_grid, "Bench", Breaking)
    monkeypatch.setattr(gpu, "ceilings", lambda device, rehearsal: {"copy": {"rate": 4e12}})
    monkeypatch.setattr(gpu_steps, "timed_cases", lambda *given: iter(()))
    monkeypatch.setattr(gpu, "shares", lambda row, rates: {})
    monkeypatch.setattr(gpu, "line", lambda case, rows: str(case))


@pytest.mark.usefixtures("grid")
def test_another_run_goes_on_behind_the_case_that_broke_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bench.json"
    monkeypatch.setattr(
        gpu, "alive", lambda device: not out.exists() or "illegal" not in out.read_text()
    )
    words = ["--seconds", "60", "--out", str(out), "--resume"]
    assert gpu.main(parse("gpu", gpu, words)) == gpu.BROKEN
    data = json.loads(out.read_text())
    assert [case["rows"] for case in data["tried"]] == [1, 8]
    assert data["failed"][0]["reason"].endswith("an illegal memory access was encountered")
    monkeypatch.setattr(gpu, "alive", lambda device: True)
    assert gpu.main(parse("gpu", gpu, words)) == 1
    data = json.loads(out.read_text())
    assert [row["rows"] for row in data["rows"]] == [1, 64]
    assert [case["rows"] for case in data["failed"]] == [8]
    assert data["left_out"] == []


def results(**more: Any) -> dict[str, Any]:
    return {"ceilings": {"copy": {}}, "steps": [], "rows": [], "tried": [], "failed": []} | more


def test_a_case_that_ended_its_process_is_named_once(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    assert not bench.note_failed(out, "it ended with -11")
    out.write_text(json.dumps(results(ceilings={})))
    assert not bench.note_failed(out, "it ended with -11")
    tried = [vars(case) for case in CASES[:2]]
    done = {**tried[0], "format": "bf16", "beside": "int4-g32", "right": True}
    out.write_text(json.dumps(results(tried=tried, rows=[done])))
    for _ in range(2):
        assert bench.note_failed(out, "it ended with -11")
        data = json.loads(out.read_text())
        assert data["failed"] == [tried[1] | {"reason": "it ended with -11"}]
    # A process that ended behind its last case took none along.
    out.write_text(json.dumps(results(tried=tried[:1], rows=[done])))
    assert bench.note_failed(out, "it ended with -11")
    assert json.loads(out.read_text())["failed"] == []


def test_a_kernel_of_a_step_that_ended_the_process_does_not_take_the_grid_along(
    tmp_path: Path,
) -> None:
    out = tmp_path / "bench.json"
    out.write_text(json.dumps(results()))
    assert bench.note_failed(out, "it ended with -11")
    steps = json.loads(out.read_text())["steps"]
    assert [(step["right"], step["failed"]) for step in steps] == [(False, "it ended with -11")]


def test_processes_follow_each_other_until_one_does_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, tmp_path, time.monotonic() + 60, rehearsal=True)
    endings = iter(("it ended with -11", ""))
    seen: list[int] = []

    def process(place: Place, out: Path) -> str:
        seen.append(len(seen))
        done = {**vars(CASES[0]), "beside": "int4-g32", "right": True}
        tried = [vars(case) for case in CASES[: len(seen)]]
        known = json.loads(out.read_text())["failed"] if out.exists() else []
        rows = [done] if len(seen) > 1 else []
        out.write_text(json.dumps(results(tried=tried, rows=rows, failed=known, sentence="Done.")))
        return next(endings)

    monkeypatch.setattr(bench, "_process", process)
    good, told = bench.run(place)
    assert (good, told, len(seen)) == (False, "Done.", 2)
