"""Keeping calibrations: only for the same environment, only when sound. And one quick real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import calibrate
from core.calibrate import Calibration
from core.measure.environment import environment

KNOWN = Calibration("abc", "2026-11-21T10:00:00.000", "cpu", 2e10, (("bf16", 1e12), ("fp32", 1e11)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_was_stored_is_found_again() -> None:
    path = calibrate.store(KNOWN)
    assert path.parent.name == "trimtab"
    assert calibrate.stored("abc") == KNOWN
    assert list(path.parent.iterdir()) == [path]


def test_another_environment_has_none() -> None:
    calibrate.store(KNOWN)
    assert calibrate.stored("abd") is None


SOUND: dict[str, object] = {
    "version": 1,
    "environment": "abc",
    "taken_at": "x",
    "device": "cpu",
    "bandwidth": 1.0,
    "peaks": [["fp32", 1.0]],
}


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "[" * 100_000, '{"version": 1}'])
def test_a_file_that_is_no_calibration_counts_as_none(damage: str) -> None:
    path = calibrate.store(KNOWN)
    path.write_text(damage)
    assert calibrate.stored("abc") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("environment", "zzz"),
        ("bandwidth", 0),
        ("bandwidth", float("nan")),
        ("bandwidth", None),
        ("peaks", [["fp32"]]),
        ("peaks", [["fp32", -1]]),
        ("peaks", 3),
    ],
)
def test_a_wrong_field_counts_as_none(field: str, value: object) -> None:
    path = calibrate.store(KNOWN)
    path.write_text(json.dumps(SOUND))
    assert calibrate.stored("abc") is not None
    path.write_text(json.dumps({**SOUND, field: value}))
    assert calibrate.stored("abc") is None


def test_a_quick_calibration_measures_this_environment() -> None:
    found = calibrate.calibrate(seconds=0.2, device="cpu")
    assert found.environment == environment()[0]
    assert found.bandwidth > 1e8
    rates = dict(found.peaks)
    assert rates["fp32"] > 1e8
    assert set(rates) <= set(calibrate.FORMATS)


def test_ensure_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    key, _ = environment()

    def measured() -> Calibration:
        nonlocal calls
        calls += 1
        return Calibration(key, "2026-11-21T10:00:00.000", "cpu", 1e10, ())

    monkeypatch.setattr(calibrate, "calibrate", measured)
    assert calibrate.ensure() == calibrate.ensure()
    assert calls == 1
