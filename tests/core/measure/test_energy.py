"""The energy reader on recorded counter folders: wrap-around, gaps, permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.measure import energy
from core.measure.energy import Counter, EnergyMeter, counters

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, microjoules: str = "1000", range_uj: str = "") -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "max_energy_range_uj").write_text((range_uj or str(RANGE)) + "\n")
    (path / "energy_uj").write_text(microjoules + "\n")
    return path


def test_only_whole_packages_are_counted(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0")
    second = zone(tmp_path, "intel-rapl:1", "package-1")
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:0:1", "package-like-child")
    zone(tmp_path, "intel-rapl:2", "psys")
    # The same package again, through memory-mapped registers: counting it would double the joules.
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    found, why = counters(tmp_path)
    assert [one.path for one in found] == [first, second]
    assert why == ""


def test_a_machine_with_only_a_psys_zone_has_no_package_counter(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys")
    found, why = counters(tmp_path)
    assert found == ()
    assert "lists no RAPL package" in why


def test_no_powercap_is_said(tmp_path: Path) -> None:
    found, why = counters(tmp_path / "powercap")
    assert found == ()
    assert "does not exist" in why
    assert str(tmp_path) in why


def test_an_empty_powercap_is_said(tmp_path: Path) -> None:
    assert counters(tmp_path) == (
        (),
        "no energy counter: powercap lists no RAPL package on this machine",
    )


@pytest.mark.parametrize("damage", ["missing", "empty", "words", "folder", "no range", "range 0"])
def test_a_counter_that_cannot_be_read_makes_energy_unavailable(
    tmp_path: Path, damage: str
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    path = zone(tmp_path, "intel-rapl:1", "package-1")
    if damage in ("missing", "folder"):
        (path / "energy_uj").unlink()
    if damage == "folder":
        (path / "energy_uj").mkdir()
    if damage == "empty":
        (path / "energy_uj").write_text("")
    if damage == "words":
        (path / "energy_uj").write_text("lots\n")
    if damage == "no range":
        (path / "max_energy_range_uj").unlink()
    if damage == "range 0":
        (path / "max_energy_range_uj").write_text("0\n")
    found, why = counters(tmp_path)
    assert found == ()
    assert "intel-rapl:1" in why
    assert "cannot be read" in why


def test_a_counter_without_permission_makes_energy_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")

    def refused(self: Counter) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Counter, "read", refused)
    found, why = counters(tmp_path)
    assert found == ()
    assert "root or a readable powercap" in why


def test_joules_are_summed_over_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", "5000000")
    second = zone(tmp_path, "intel-rapl:1", "package-1", "100")
    now = 10.0
    monkeypatch.setattr(energy.time, "perf_counter", lambda: now)
    meter = EnergyMeter(counters(tmp_path)[0])
    meter.start()
    (first / "energy_uj").write_text("7500000\n")
    (second / "energy_uj").write_text("1000100\n")
    now = 12.0
    assert meter.stop() == (pytest.approx(3.5), 2.0)


def test_a_counter_that_wrapped_is_unwrapped(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", str(RANGE - 1_000_000))
    meter = EnergyMeter(counters(tmp_path)[0])
    meter.start()
    (path / "energy_uj").write_text("2000000\n")
    joules, _ = meter.stop()
    assert joules == pytest.approx(3.0, abs=2e-6)


def test_idle_power_is_measured_while_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", "0")
    clock = [50.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        (path / "energy_uj").write_text(f"{int(12.5e6 * seconds)}\n")

    monkeypatch.setattr(energy.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(energy.time, "sleep", sleep)
    meter = EnergyMeter(counters(tmp_path)[0])
    assert meter.idle_watts == 0.0
    meter.measure_idle(2.0)
    assert meter.idle_watts == pytest.approx(12.5)
