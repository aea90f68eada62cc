"""NVML through a library of our own that answers as recorded: no driver is needed."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from core.measure.energy import nvml
from core.measure.energy.nvml import CountedReader, Nvml, SampledReader, find
from core.measure.energy.reader import Unreadable


class Driver:
    """Answers like libnvidia-ml: status as result, values through pointers."""

    def __init__(
        self, energy: list[int] | None = None, power: list[int] | None = None, start: int = 0
    ) -> None:
        self.energy = energy
        self.power = power
        self.start = start
        self.asked: list[object] = []

    def nvmlInit_v2(self) -> int:
        return self.start

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        self.asked.append(index)
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        self.asked.append(uuid)
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        if self.energy is None:
            return nvml.NOT_SUPPORTED
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.energy.pop(0)
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, value: Any) -> int:
        if not self.power:
            return 999
        ctypes.cast(value, ctypes.POINTER(ctypes.c_uint))[0] = self.power.pop(0)
        return 0


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
    assert driver.asked == [b"GPU-1234", 0]


def test_nvmls_own_words_are_passed_on() -> None:
    reader, why = find(Driver(start=9))
    assert reader is None
    assert why == "no GPU energy: NVML cannot start: error 9"
    reader, why = find(Driver())
    assert reader is None
    assert "cannot read the power: error 999" in why


def test_no_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnothing-of-this-name.so.1")
    reader, why = find()
    assert reader is None
    assert "a part of NVIDIA's driver, is not installed" in why


def test_a_library_without_the_functions_is_said() -> None:
    reader, why = find(object())
    assert reader is None
    assert why.startswith("no GPU energy:")
