"""NVML through a stand-in for the package nvidia-ml-py: neither it nor a driver is needed."""

from __future__ import annotations

import sys

import pytest

from core.measure.energy import nvml
from core.measure.energy.nvml import CountedReader, Nvml, SampledReader, find
from core.measure.energy.reader import Unreadable


class NVMLError(Exception):
    """As pynvml's: the text is NVML's own."""


class NVMLError_NotSupported(NVMLError):
    """As pynvml's."""


class Driver:
    """Answers like the module pynvml of nvidia-ml-py."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLError_NotSupported

    def __init__(
        self, energy: list[int] | None = None, power: list[int] | None = None, why: str = ""
    ) -> None:
        self.energy = energy
        self.power = power
        self.why = why
        self.asked: list[object] = []

    def nvmlInit(self) -> None:
        if self.why:
            raise NVMLError(self.why)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        self.asked.append(index)
        return object()

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:
        self.asked.append(uuid)
        return object()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:
        if self.energy is None:
            raise NVMLError_NotSupported("Not Supported")
        return self.energy.pop(0)

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:
        if not self.power:
            raise NVMLError("Unknown Error")
        return self.power.pop(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(nvml.time, "perf_counter", lambda: now[0])
    return now


def test_the_counter_in_millijoules_becomes_joules(clock: list[float]) -> None:
    # Beyond 32 bits: a GPU that has been up for months.
    base = 9_000_000_000_000
    reader, why = find(Driver([base, base, base + 350_000, base + 350_500]))
    assert why == ""
    assert isinstance(reader, CountedReader)
    assert reader.origin == "measured"
    reader.start()
    clock[0] = 1.0
    lap = reader.lap()
    assert (lap.total, lap.seconds) == (pytest.approx(350.0), 1.0)
    assert reader.lap().total == pytest.approx(0.5)


def test_a_counter_that_went_back_is_said() -> None:
    reader, _ = find(Driver([10, 5000, 20]))
    assert reader is not None
    reader.start()
    with pytest.raises(Unreadable, match="loaded anew"):
        reader.lap()


def test_a_gpu_that_does_not_count_is_sampled_and_called_an_estimate(clock: list[float]) -> None:
    driver = Driver(power=[100_000, 100_000, 200_000, 300_000])
    reader = SampledReader(Nvml(driver), thread=False)
    assert reader.origin == "estimated"
    assert reader.spread[0] < 1 < reader.spread[1]
    reader.start()
    clock[0] = 1.0
    reader.sample()
    clock[0] = 3.0
    # Trapezoids: 1 s at 100 W, then 2 s from 100 to 200 W.
    assert reader.lap().total == pytest.approx(100.0 + 300.0)
    clock[0] = 4.0
    assert reader.lap().total == pytest.approx(250.0)


def test_the_reader_follows_what_the_gpu_can_do() -> None:
    found, _ = find(Driver(power=[50_000, 50_000]))
    assert isinstance(found, SampledReader)


def test_the_device_is_chosen_by_its_uuid_where_torch_tells_it() -> None:
    driver = Driver([1])
    Nvml(driver, "GPU-1234")
    Nvml(driver)
    assert driver.asked == ["GPU-1234", 0]


def test_nvmls_own_words_are_passed_on() -> None:
    reader, why = find(Driver(why="Driver Not Loaded"))
    assert reader is None
    assert why == "no GPU energy: NVML cannot start: Driver Not Loaded"
    reader, why = find(Driver())
    assert reader is None
    assert "cannot read the power: Unknown Error" in why


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    reader, why = find()
    assert reader is None
    assert "the package nvidia-ml-py is not installed" in why
    assert "trimtab[energy]" in why


def test_the_package_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver([5]))
    reader, why = find()
    assert isinstance(reader, CountedReader)
    assert why == ""


def test_the_counter_is_watched_until_its_renewals_are_seen(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that counts on every 20 ms, asked every millisecond."""
    driver = Driver([0])
    reader = CountedReader(Nvml(driver))

    def read() -> int:
        clock[0] += 0.001
        return int(clock[0] / 0.02) * 1400

    monkeypatch.setattr(reader, "_read", read)
    reader.watch()
    assert reader.resolution_s == pytest.approx(0.02, abs=0.002)
    assert clock[0] < 0.25


def test_a_counter_that_hardly_moves_keeps_the_slowest_resolution(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = CountedReader(Nvml(Driver([0])))

    def read() -> int:
        clock[0] += 0.001
        return int(clock[0] / 0.4)

    monkeypatch.setattr(reader, "_read", read)
    reader.watch()
    assert reader.resolution_s == nvml.RESOLUTION_S
    assert clock[0] < 1.1


def test_the_only_card_is_the_one_when_its_name_is_not_known_there() -> None:
    class Hidden(Driver):
        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:
            raise NVMLError("Not Found")

        def nvmlDeviceGetCount(self) -> int:
            return cards

    cards, driver = 1, Hidden([1])
    Nvml(driver, "MIG-1234")
    assert driver.asked == [0]
    cards = 2
    with pytest.raises(Unreadable, match="cannot find the device: Not Found"):
        Nvml(driver, "MIG-1234")


def test_a_counter_that_may_not_be_read_leaves_the_power_reading() -> None:
    class Refusing(Driver):
        def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:
            raise NVMLError("Insufficient Permissions")

    reader, why = find(Refusing(power=[50_000]))
    assert isinstance(reader, SampledReader)
    assert why == ""
