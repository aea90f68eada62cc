"""What `trimtab doctor` says: JSON-ready, every kernel with a reason, nothing measured unasked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.machine import calibrate
from core.machine.calibrate import Calibration, Rate
from core.measure import diagnosis
from core.measure.diagnosis import diagnose
from kernels import choice


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    return diagnose()


def test_the_diagnosis_is_json_and_has_its_sections(found: dict[str, object]) -> None:
    again = json.loads(json.dumps(found, allow_nan=False))
    assert set(again) == {
        "environment",
        "facts",
        "target",
        "calibration",
        "kernels",
        "choices",
        "energy",
        "missing",
        "summary",
    }
    titles = [title for title, _ in again["summary"]]
    assert titles[:2] == ["machine", "limits"]
    assert titles[2].startswith("kernels on ")
    assert titles[-2:] == ["energy", "missing"]
    assert titles[3:-2] == (["chosen by measuring"] if again["choices"] else [])
    assert all(
        lines and all(isinstance(one, str) for one in lines) for _, lines in again["summary"]
    )


def test_a_kernel_runs_or_has_a_reason(found: dict[str, object]) -> None:
    kernels = found["kernels"]
    assert isinstance(kernels, list)
    assert {one["op"] for one in kernels} >= {"linear_lowbit", "linear_w8a8", "rms_norm"}
    for one in kernels:
        assert one["runs"] is (one["reason"] is None)
    runs = {one["op"] for one in kernels if one["runs"]}
    assert runs == {one["op"] for one in kernels}, "an operation without any kernel here"


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {"json": "always there", "no_such_library_at_all": "nowhere: look elsewhere"}
    monkeypatch.setattr(diagnosis, "EXTRAS", extras)
    found = diagnose()
    assert found["missing"] == {"no_such_library_at_all": "nowhere: look elsewhere"}
    assert dict(found["summary"])["missing"] == ["no_such_library_at_all: nowhere: look elsewhere"]


def test_kernels_of_ours_that_cannot_run_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "lost", lambda device: {"no room": ["swiglu", "rms_norm"]})
    assert "our kernels of swiglu, rms_norm: no room" in dict(diagnose()["summary"])["missing"]


def test_a_kernel_asked_for_by_a_wrong_name_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_KERNEL", "linear_lowbit=nonsense")
    (line,) = [one for one in dict(diagnose()["summary"])["missing"] if "TRIMTAB_KERNEL" in one]
    assert line.startswith("TRIMTAB_KERNEL: linear_lowbit has no kernel 'nonsense'; there are cpp")


def test_energy_says_why_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "counters", lambda: ((), "no counter in this test"))
    found = diagnose()
    assert found["energy"] == "no counter in this test"
    assert dict(found["summary"])["energy"] == ["no counter in this test"]
    monkeypatch.setattr(diagnosis, "counters", lambda: (("one",), ""))
    assert diagnose()["energy"] == "readable"


def test_limits_are_unknown_until_measured_and_then_said_with_their_spread(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = diagnose()
    assert found["calibration"] is None
    assert "doctor --calibrate" in dict(found["summary"])["limits"][0]
    read = Rate("read", "B/s", 2e10, 1.9e10, 1.8e10, 2e10, 9, 1 << 28, 2, "", "a loop")
    peak = Rate("peak", "op/s", 8e11, 7e11, 6e11, 8e11, 9, 1, 0, "bf16", "torch")
    key = found["environment"]
    known = Calibration(
        key, "2026-11-21T10:00:00.000", "cpu", 1e10, (("bf16", 8e11),), (read, peak), 24.0, 1.5
    )
    monkeypatch.setattr(calibrate, "calibrate", lambda report: known)
    found = diagnose(calibrate=True)
    lines = dict(found["summary"])["limits"]
    assert "other processes took 1.5 cores" in lines[0]
    assert "reading 256 MiB: 20.0 GB/s (median 19.0 GB/s of 9; a loop)" in lines
    assert "multiplying bf16: 800 Gop/s (median 700 Gop/s of 9; torch)" in lines
    assert found["calibration"]["environment"] == key
    assert calibrate.stored(key) == known


def test_kernels_chosen_by_measuring_are_shown_with_their_margin(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert diagnose()["choices"] == []
    assert "chosen by measuring" not in dict(diagnose()["summary"])
    monkeypatch.setattr(choice, "measures", lambda device: True)
    asked = choice.Question("linear_fp8", "fp8-fp8", (4096, 4096), 128, "bf16")
    calls = {"triton": lambda: time.sleep(0.003), "torch-scaled-mm": lambda: time.sleep(0.001)}
    choice.fastest(asked, tuple(calls), lambda: calls, torch.device("cpu"))
    choice.forget()
    found = diagnose()
    (row,) = found["choices"]
    assert (row["op"], row["shape"], row["rows"]) == ("linear_fp8", [4096, 4096], 128)
    assert row["kernel"] == "torch-scaled-mm"
    assert row["margin"] == row["seconds"]["triton"] / row["seconds"]["torch-scaled-mm"]
    (line,) = dict(found["summary"])["chosen by measuring"]
    assert "4096 x 4096" in line
    assert "before triton" in line
    json.dumps(found)


def test_on_a_gpu_its_own_counter_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.nvml, "find", lambda: (None, "no GPU energy in this test"))
    assert diagnosis._energy("cuda") == ("no GPU energy in this test", "")
    reader = SimpleNamespace(name="NVML energy counter")
    monkeypatch.setattr(diagnosis.nvml, "find", lambda: (reader, ""))
    assert diagnosis._energy("cuda") == ("", "NVML energy counter is readable")
