"""RAPL's counters in recorded folders: which zones count, wrap-around, resets, permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.measure.energy import powercap
from core.measure.energy.powercap import Counter, RaplReader, counters, find, zones
from core.measure.energy.reader import Unreadable

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, microjoules: str = "1000", range_uj: str = "") -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "max_energy_range_uj").write_text((range_uj or str(RANGE)) + "\n")
    (path / "energy_uj").write_text(microjoules + "\n")
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of powercap: a list with the seconds of now."""
    now = [100.0]
    monkeypatch.setattr(powercap.time, "perf_counter", lambda: now[0])
    return now


def test_packages_and_their_memory_count_and_the_platform_stands_beside(tmp_path: Path) -> None:
    # As an Intel server with two sockets shows itself.
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:0:1", "dram")
    zone(tmp_path, "intel-rapl:1", "package-1")
    zone(tmp_path, "intel-rapl:1:0", "dram")
    zone(tmp_path, "intel-rapl:2", "psys")
    (tmp_path / "intel-rapl").mkdir()
    inside, around, why = zones(tmp_path)
    assert [one.name for one in inside] == [
        "package-0",
        "dram of package-0",
        "package-1",
        "dram of package-1",
    ]
    assert [one.name for one in around] == ["psys"]
    assert why == ""
    assert counters(tmp_path) == (inside, "")


def test_the_same_package_through_other_registers_counts_once(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    zone(tmp_path, "intel-rapl-mmio:0:0", "dram")
    assert [one.path for one in counters(tmp_path)[0]] == [first]


def test_a_package_that_only_the_mapped_registers_show_counts(tmp_path: Path) -> None:
    only = zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert [one.path for one in counters(tmp_path)[0]] == [only]


def test_amds_zones_and_dies_of_one_package_are_packages(tmp_path: Path) -> None:
    # AMD uses the same driver; on packages of several dies each die has a zone.
    zone(tmp_path, "intel-rapl:0", "package-0-die-0", range_uj="65532610987")
    zone(tmp_path, "intel-rapl:0:0", "core", range_uj="65532610987")
    zone(tmp_path, "intel-rapl:1", "package-0-die-1", range_uj="65532610987")
    found, _ = counters(tmp_path)
    assert [one.name for one in found] == ["package-0-die-0", "package-0-die-1"]
    assert {one.range_uj for one in found} == {65_532_610_987}


def test_a_machine_with_only_a_platform_zone_has_no_package(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys")
    found, why = counters(tmp_path)
    assert found == ()
    assert "lists no RAPL package" in why


def test_no_powercap_and_an_empty_one_are_said(tmp_path: Path) -> None:
    assert counters(tmp_path) == (
        (),
        "no energy counter: powercap lists no RAPL package on this machine",
    )
    found, why = counters(tmp_path / "powercap")
    assert found == ()
    assert f"{tmp_path}/powercap does not exist" in why


@pytest.mark.parametrize("damage", ["missing", "empty", "words", "folder", "no range", "range 0"])
def test_one_package_that_cannot_be_read_makes_energy_unavailable(
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


def test_a_platform_zone_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    (zone(tmp_path, "intel-rapl:1", "psys") / "energy_uj").unlink()
    inside, around, why = zones(tmp_path)
    assert (len(inside), around, why) == (1, (), "")


def test_without_permission_the_sentence_says_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")

    def refused(self: Counter) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Counter, "read", refused)
    reader, why = find(tmp_path)
    assert reader is None
    assert "root or a readable powercap" in why
    assert f"chmod a+r {tmp_path}/*/energy_uj" in why


def test_laps_follow_a_recorded_counter_through_its_wrap(
    tmp_path: Path, clock: list[float]
) -> None:
    """A package at about 15 W whose counter starts anew in the third of five laps of 0.1 s."""
    record = (RANGE - 3_000_017, RANGE - 1_499_999, RANGE - 61, 1_400_000, 2_900_061, 4_400_000)
    path = zone(tmp_path, "intel-rapl:0", "package-0", str(record[0]))
    reader, _ = find(tmp_path)
    assert reader is not None
    reader.start()
    seen = []
    for value in record[1:]:
        (path / "energy_uj").write_text(f"{value}\n")
        clock[0] += 0.1
        seen.append(reader.lap())
    joules = [lap.total for lap in seen]
    assert joules == pytest.approx([1.500018, 1.499938, 1.400061, 1.500061, 1.499939])
    assert sum(joules) == pytest.approx((record[-1] - record[0] + RANGE) / 1e6)
    assert [lap.seconds for lap in seen] == pytest.approx([0.1] * 5)


def test_joules_are_summed_over_packages_and_the_platform_is_not_added(
    tmp_path: Path, clock: list[float]
) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", "5000000")
    second = zone(tmp_path, "intel-rapl:1", "package-1", "100")
    around = zone(tmp_path, "intel-rapl:2", "psys", "0")
    reader, _ = find(tmp_path)
    assert isinstance(reader, RaplReader)
    reader.start()
    (first / "energy_uj").write_text("7500000\n")
    (second / "energy_uj").write_text("1000100\n")
    (around / "energy_uj").write_text("9000000\n")
    clock[0] += 2
    lap = reader.lap()
    assert lap.total == pytest.approx(3.5)
    assert dict(lap.joules) == pytest.approx({"package-0": 2.5, "package-1": 1.0})
    assert dict(lap.beside) == pytest.approx({"psys": 9.0})


def test_a_span_in_which_the_counter_could_wrap_twice_is_refused() -> None:
    counter = Counter(Path("zone"), 65_532_610_987)
    # 65,533 J at no more than 1,000 W: 65.5 s.
    assert counter.between(0, 60_000_000_000, 65.0) == pytest.approx(60_000)
    with pytest.raises(Unreadable, match=r"65,533 J, at 1,000 W after 66 s.*shorter rounds"):
        counter.between(0, 5_000_000, 66.0)


def test_a_counter_that_was_reset_is_no_wrap() -> None:
    # From 200 kJ back to 10 J in a second would be 62 kW when read as a wrap.
    with pytest.raises(Unreadable, match="the counter was reset within the span"):
        Counter(Path("zone"), RANGE).between(200_000_000_000, 10_000_000, 1.0)


def test_a_large_stated_limit_shortens_the_longest_span(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0")
    (path / "constraint_0_max_power_uw").write_text("500000000\n")
    (path / "constraint_1_max_power_uw").write_text("\n")
    assert counters(tmp_path)[0][0].most_watts == 2000.0


def test_a_counter_that_stops_answering_is_said(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0")
    reader, _ = find(tmp_path)
    assert reader is not None
    reader.start()
    (path / "energy_uj").unlink()
    with pytest.raises(Unreadable, match="stopped answering"):
        reader.lap()
