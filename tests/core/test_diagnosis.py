"""What `trimtab doctor` says: JSON-ready, every kernel with a reason, nothing measured unasked."""

from __future__ import annotations

import json

import pytest

from core import diagnosis
from core.diagnosis import diagnose


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    return diagnose()


def test_the_diagnosis_is_json_and_has_its_sections(found: dict[str, object]) -> None:
    again = json.loads(json.dumps(found, allow_nan=False))
    assert set(again) == {
        "environment",
        "facts",
        "target",
        "kernels",
        "energy",
        "missing",
        "summary",
    }
    titles = [title for title, _ in again["summary"]]
    assert titles[0] == "machine"
    assert titles[1].startswith("kernels on ")
    assert titles[2:] == ["energy", "missing"]
    assert all(
        lines and all(isinstance(one, str) for one in lines) for _, lines in again["summary"]
    )


def test_a_kernel_runs_or_has_a_reason(found: dict[str, object]) -> None:
    kernels = found["kernels"]
    assert isinstance(kernels, list)
    assert {one["op"] for one in kernels} >= {"linear_w8", "linear_w4", "rms_norm"}
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


def test_energy_says_why_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "counters", lambda: ((), "no counter in this test"))
    found = diagnose()
    assert found["energy"] == "no counter in this test"
    assert dict(found["summary"])["energy"] == ["no counter in this test"]
    monkeypatch.setattr(diagnosis, "counters", lambda: (("one",), ""))
    assert diagnose()["energy"] == "readable"
