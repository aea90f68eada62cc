"""The benchmark of the GPU's linear kernels: its rehearsal, its order, what its sentence says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence import ROOT
from tests.evidence.kernels import gpu, gpu_grid, gpu_steps

RATES = {"copy": {"rate": 4e12}, "read": {"rate": 4.4e12}, "bf16": {"rate": 7e14}}


def row(format_: str, rows: int, kernel: str = "triton", **facts: object) -> dict[str, object]:
    usual = {"format": format_, "beside": format_, "n": 4096, "k": 4096, "rows": rows}
    return usual | {"kernel": kernel, "right": True, "off": 0.001} | facts


def told(*rows: dict[str, object], **more: object) -> tuple[str, bool]:
    goals = [gpu.goal(rows, *asked) for asked in gpu.GOALS]
    data = {"rehearsal": False, "rows": list(rows), "goals": goals, "failed": [], "left_out": []}
    return gpu.verdict(data | more)


REACHED = (
    row("int4-g32", 1, copy_share=0.81),
    row("int4-g32", 1, "triton/many", copy_share=0.5),
    row("int4-g32", 64, to_bf16=[0.93, 0.9, 1.0]),
    row("fp8-fp8", 128, to_bf16=[1.4, 1.3, 1.5]),
    row("w8a8", 512, to_bf16=[1.5, 1.3, 1.5]),
)


def test_the_rehearsal_writes_every_case_with_its_blocks(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.evidence", "gpu", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"TRIMTAB_GPU_REHEARSAL": "1", "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    data = json.loads(out.read_text())
    assert data["rehearsal"] is True
    assert set(data["ceilings"]) == {"copy", "read", "bf16", "fp8", "int8"}
    assert data["failed"] == data["left_out"] == []
    assert {r["beside"] for r in data["rows"]} == {"int4-g32", "nf4-g64", "w8a8", "fp8-fp8"}
    assert {(r["op"], r.get("bits"), r["kernel"]) for r in data["steps"]} == {
        ("attention", 16, "triton/2"), ("attention", 16, "torch-sdpa"),
        ("attention", 4, "triton/2"), ("rms_norm", None, "triton"), ("rms_norm", None, "torch"),
        ("swiglu", None, "triton"), ("swiglu", None, "torch"),
    }  # fmt: skip
    for result in data["steps"]:
        assert result["right"]
        assert result["us"] > 0
    for result in data["rows"]:
        assert result["right"]
        assert result["us"] > 0
        own = result["kernel"] != "bf16"
        assert not own or "BLOCK_N" in result["configuration"]
    assert done.stdout.strip().splitlines()[-1] == data["sentence"]


def test_a_step_kernel_that_is_wrong_or_fails_is_said() -> None:
    steps = [{"op": "swiglu", "kernel": "triton", "right": False, "failed": "no"}]
    sentence, missed = told(*REACHED, steps=steps)
    assert "1 ways of attention, norms and gates are wrong or failed" in sentence
    assert missed
    assert gpu_steps.line(steps) == "norms and gates: triton no"


def test_a_run_that_is_out_of_time_says_what_it_left_out(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.evidence", "gpu", "--seconds", "0", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"TRIMTAB_GPU_REHEARSAL": "1", "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    data = json.loads(out.read_text())
    assert len(data["left_out"]) == len(gpu_grid.cases(True))
    assert "8 cases were left out" in data["sentence"]


def test_every_case_comes_once_and_the_decisive_ones_first() -> None:
    cases = gpu_grid.cases(False)
    assert len(cases) == len(set(cases)) == 6 * 9 * 8
    assert cases[0] == gpu_grid.Case("int4-g32", 28672, 4096, 1)
    # A cut run answers every goal: 24 cases in, each has a number at both ends.
    early = {(case.format, case.rows) for case in cases[:28]}
    assert {("int4-g32", 1), ("int4-g32", 8), ("int4-g32", 64), ("int4-g32", 512)} <= early
    assert {("w8a8", 128), ("fp8-fp8", 128), ("w8a8", 512), ("fp8-fp8", 512)} <= {
        (case.format, case.rows) for case in cases[:34]
    }


def test_a_case_counts_by_its_fastest_right_kernel() -> None:
    sentence, missed = told(*REACHED)
    assert not missed
    assert "W4A16 at 1 to 8 rows: at least 0.81 of the copy bandwidth" in sentence
    assert sentence.endswith("reached.")


def test_a_goal_that_was_not_measured_is_missed() -> None:
    sentence, missed = told(*REACHED[:-1])
    assert missed
    assert "W8A8 from 128 rows on: not measured (1.3 wanted)" in sentence


def test_a_wrong_kernel_is_no_answer_and_is_named() -> None:
    fast = row("int4-g32", 8, copy_share=0.9, right=False, off=0.5)
    sentence, missed = told(*REACHED, fast)
    assert missed
    assert "triton of int4-g32 4096 x 4096 at 8 rows is wrong (0.5)" in sentence
    broken = {"format": "w8a8", "beside": "w8a8", "n": 4096, "k": 4096, "rows": 128}
    sentence, missed = told(*REACHED, broken | {"kernel": "torch-int-mm", "failed": "no such"})
    assert missed
    assert "torch-int-mm of w8a8 4096 x 4096 at 128 rows failed (no such)" in sentence


def test_the_worst_shape_decides_and_small_models_do_not_count() -> None:
    slow = row("int4-g32", 2, copy_share=0.4)
    small = row("int4-g32", 2, copy_share=0.1, n=896, k=896)
    sentence, missed = told(*REACHED, slow, small)
    assert missed
    assert "at least 0.40 of the copy bandwidth" in sentence
    assert "worst int4-g32 4096 x 4096 at 2 rows" in sentence


def test_shares_are_unknown_where_a_ceiling_is() -> None:
    timed = {"us": 10.0, "format": "fp8-fp8", "gb_per_s": 2000.0, "tflops": 100.0}
    found = gpu.shares(timed, RATES)
    assert found == {"copy_share": 0.5, "read_share": 2e12 / 4.4e12, "peak_share": None}
    assert gpu.shares({"failed": "no"}, RATES) == {}
