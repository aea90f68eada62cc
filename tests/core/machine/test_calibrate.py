"""Keeping calibrations: only for the same environment, only when sound. And one quick real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.machine import calibrate
from core.machine.calibrate import Calibration, Rate
from core.machine.calibration.record import summary, to_data
from core.machine.environment import environment

MIB = 1 << 20
READS = tuple(
    Rate("read", "B/s", best, best * 0.9, best * 0.8, best * 0.95, 9, size, threads, "", "loop")
    for size, threads, best in (
        (MIB, 2, 100e9), (16 * MIB, 2, 80e9), (256 * MIB, 2, 20e9), (256 * MIB, 1, 12e9),
    )
)  # fmt: skip
KNOWN = Calibration(
    "abc",
    "2026-11-21T10:00:00.000",
    "cpu",
    2e10,
    (("bf16", 1e12), ("fp32", 1e11)),
    READS,
    24.0,
    0.1,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("known", [KNOWN, replace(KNOWN, rates=(), others_cores=None)])
def test_what_was_stored_is_found_again(known: Calibration) -> None:
    path = calibrate.store(known)
    assert path.parent.name == "trimtab"
    assert calibrate.stored("abc") == known
    assert list(path.parent.iterdir()) == [path]


def test_another_environment_has_none() -> None:
    calibrate.store(KNOWN)
    assert calibrate.stored("abd") is None
    path = calibrate.store(KNOWN)
    path.rename(path.with_name("calibration-abd.json"))
    assert calibrate.stored("abd") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "3", "[" * 100_000, '{"version": 2}'])
def test_a_file_that_is_no_calibration_counts_as_none(damage: str) -> None:
    path = calibrate.store(KNOWN)
    path.write_text(damage)
    assert calibrate.stored("abc") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 1),
        ("environment", "zzz"),
        ("bandwidth", 0),
        ("bandwidth", float("nan")),
        ("bandwidth", None),
        ("peaks", [["fp32"]]),
        ("peaks", [["fp32", -1]]),
        ("peaks", 3),
        ("rates", None),
        ("rates", [{"name": "read"}]),
        ("rates", [{**to_data(KNOWN)["rates"][0], "best": float("inf")}]),
        ("rates", [{**to_data(KNOWN)["rates"][0], "n": "many"}]),
        ("seconds", "long"),
    ],
)
def test_a_wrong_field_counts_as_none(field: str, value: object) -> None:
    path = calibrate.store(KNOWN)
    sound: dict[str, Any] = json.loads(path.read_text())
    assert calibrate.stored("abc") is not None
    path.write_text(json.dumps({**sound, field: value}))
    assert calibrate.stored("abc") is None


def test_the_reading_limit_follows_the_size_between_what_was_measured() -> None:
    assert [rate.best for rate in KNOWN.reading()] == [100e9, 80e9, 20e9]
    assert KNOWN.memory_bandwidth() == 20e9
    assert KNOWN.read_bandwidth(10) == 100e9
    assert KNOWN.read_bandwidth(16 * MIB) == pytest.approx(80e9)
    # 64 MiB lies in the middle between 16 and 256 on a logarithmic scale: sqrt(80 * 20) = 40.
    assert KNOWN.read_bandwidth(64 * MIB) == pytest.approx(40e9)
    assert KNOWN.read_bandwidth(1 << 40) == 20e9
    assert replace(KNOWN, rates=()).read_bandwidth(MIB) is None


def test_a_dip_at_a_small_size_is_lifted_to_what_a_larger_one_reached() -> None:
    dipped = (replace(READS[0], best=1e9), *READS[1:])
    assert replace(KNOWN, rates=dipped).read_bandwidth(MIB) == 80e9


def test_a_rate_is_its_best_with_median_and_spread() -> None:
    rate = summary("read", "B/s", [3.0, 1.0, 2.0, 5.0, 4.0])
    assert (rate.best, rate.median, rate.low, rate.high, rate.n) == (5.0, 3.0, 2.0, 4.0, 5)
    assert rate.spread == pytest.approx(2 / 3)
    assert summary("overhead", "s", [3.0, 1.0, 2.0]).best == 1.0


def test_a_quick_calibration_measures_this_environment() -> None:
    told: list[tuple[str, float]] = []
    found = calibrate.calibrate(0.2, "cpu", lambda stage, share: told.append((stage, share)))
    assert found.environment == environment()[0]
    rates = dict(found.peaks)
    assert rates["fp32"] > 1e7
    assert set(rates) <= set(calibrate.FORMATS)
    copies = [rate for rate in found.of("copy") if rate.size > 100 * MIB]
    assert found.bandwidth == max(rate.best for rate in copies)
    assert {rate.threads for rate in found.of("read")} >= {1}
    assert found.read_bandwidth(20 * MIB) is not None
    assert found.of("overhead", "torch operation")[0].unit == "s"
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[-1] == ("done", 1.0)
    calibrate.store(found)
    assert calibrate.stored(found.environment) == found


def test_ensure_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    key, _ = environment()

    def measured(seconds: float) -> Calibration:
        nonlocal calls
        calls += 1
        return Calibration(key, "2026-11-21T10:00:00.000", "cpu", 1e10, ())

    monkeypatch.setattr(calibrate, "calibrate", measured)
    assert calibrate.ensure() == calibrate.ensure()
    assert calls == 1
