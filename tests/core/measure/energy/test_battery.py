"""Battery gauges in recorded folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.measure.energy import battery
from core.measure.energy.battery import Gauge, find, gauge
from core.measure.energy.reader import Unreadable


def cell(root: Path, name: str = "BAT0", status: str = "Discharging", **fields: int) -> Path:
    path = root / name
    path.mkdir()
    (path / "status").write_text(status + "\n")
    for field, value in fields.items():
        (path / field).write_text(f"{value}\n")
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(battery.time, "perf_counter", lambda: now[0])
    return now


def test_microwatthours_become_joules(tmp_path: Path, clock: list[float]) -> None:
    path = cell(tmp_path, energy_now=50_000_000)
    reader, why = find(tmp_path, 600)
    assert why == ""
    assert reader is not None
    reader.start()
    # 15 W for 600 s are 9 kJ, 2.5 Wh.
    (path / "energy_now").write_text("47500000\n")
    clock[0] = 600.0
    lap = reader.lap()
    assert (lap.total, lap.seconds) == (pytest.approx(9000.0), 600.0)


def test_charges_are_taken_at_the_mean_voltage() -> None:
    # 0.25 Ah at a voltage that sags from 12 to 11 V: 900 C x 11.5 V.
    assert Gauge(7200.0, 12.0).joules_until(Gauge(6300.0, 11.0)) == pytest.approx(10_350.0)


def test_a_gauge_in_microamperehours_is_read(tmp_path: Path) -> None:
    found = gauge(cell(tmp_path, charge_now=2_000_000, voltage_now=11_500_000))
    assert (found.left, found.volts) == (pytest.approx(7200.0), pytest.approx(11.5))


def test_two_batteries_are_summed(tmp_path: Path, clock: list[float]) -> None:
    first, second = (cell(tmp_path, name, energy_now=10_000_000) for name in ("BAT0", "BAT1"))
    reader, _ = find(tmp_path, 1000)
    assert reader is not None
    reader.start()
    (first / "energy_now").write_text("9000000\n")
    (second / "energy_now").write_text("9500000\n")
    clock[0] = 500.0
    assert reader.lap().total == pytest.approx(1.5 * 3600)


def test_a_short_span_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    cell(tmp_path, energy_now=50_000_000)
    assert find(tmp_path, 5.0) == (
        None,
        "the battery's gauge is read about every 10 s: 50 readings need 500 s of rounds, 5 s are"
        " asked for",
    )


def test_on_the_charger_a_battery_tells_nothing(tmp_path: Path) -> None:
    cell(tmp_path, status="Charging", energy_now=50_000_000)
    reader, why = find(tmp_path, 1000)
    assert reader is None
    assert "BAT0 does not discharge: unplug the charger" in why


def test_a_charger_plugged_in_within_the_span_is_said(tmp_path: Path) -> None:
    path = cell(tmp_path, energy_now=50_000_000)
    reader, _ = find(tmp_path, 1000)
    assert reader is not None
    reader.start()
    (path / "energy_now").write_text("50100000\n")
    with pytest.raises(Unreadable, match="charge rose"):
        reader.lap()
    (path / "status").write_text("Full\n")
    with pytest.raises(Unreadable, match="does not discharge"):
        reader.lap()


@pytest.mark.parametrize("text", ["", "many", None])
def test_a_damaged_gauge_is_said(tmp_path: Path, text: str | None) -> None:
    path = cell(tmp_path, charge_now=1)
    if text is not None:
        (path / "voltage_now").write_text(text)
    reader, why = find(tmp_path, 1000)
    assert reader is None
    assert "the gauge of BAT0 cannot be read" in why


def test_no_battery_is_said(tmp_path: Path) -> None:
    (tmp_path / "AC").mkdir()
    assert find(tmp_path, 1000) == (None, "no battery")
    assert find(tmp_path / "gone", 1000) == (None, "no battery")
