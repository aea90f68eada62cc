"""Rounds, phases and samples, over a reader that draws stated watts by a clock that tests move."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from core.engine.serve import DECODE, PREFILL
from core.measure.energy import Book, Meter, energy, meter, nvml
from core.measure.energy.meter import find_meter
from core.measure.energy.reader import Lap, Unreadable, rounds_needed
from core.measurement import Measurement


class Steady:
    """Draws `watts` of now; `now` is the time."""

    name = "a steady source"
    origin = "measured"
    spread = (1.0, 1.0)
    draws_idle = True

    def __init__(self, resolution_s: float = 1e-9) -> None:
        self.resolution_s = resolution_s
        self.now = self._at = 0.0
        self.joules = self._began = 0.0
        self.broken = ""

    def pass_time(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.joules += seconds * watts

    def start(self) -> None:
        self._at, self._began = self.now, self.joules

    def lap(self) -> Lap:
        if self.broken:
            raise Unreadable(self.broken)
        lap = Lap(self.now - self._at, (("gpu", self.joules - self._began),), (("psys", 7.0),))
        self.start()
        return lap


def serve(book: Book, source: Steady, prefill: float = 0.2, decode: float = 0.5) -> None:
    """One round of two groups: prefill at 30 W, decode at 20 W, 0.1 s between at 10 W."""
    with book.round():
        for _ in range(2):
            source.pass_time(0.1, 10)
            book.mark(PREFILL)
            source.pass_time(prefill, 30)
            book.mark(DECODE)
            source.pass_time(decode, 20)
            book.mark("")


def by_name(found: list[Measurement]) -> dict[str, Measurement]:
    return {one.metric: one for one in found}


def test_whole_rounds_and_phases_are_counted_apart_and_idle_is_taken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Steady()
    found = Meter((source,))
    monkeypatch.setattr(meter.time, "sleep", lambda seconds: source.pass_time(seconds, 5))
    found.measure_idle(2.0)
    assert (found.idle_watts, found.idle_seconds) == (pytest.approx(5.0), 2.0)
    book = found.book(new_tokens=8, prompt_tokens=100, requests=2)
    for _ in range(4):
        serve(book, source)
    results = by_name(energy(book, None, "4 rounds", True))
    # Above 5 W of idle: 25 W x 0.4 s, 15 W x 1 s and 5 W x 0.2 s a round.
    assert results["energy_j_per_token"].samples == pytest.approx([(10 + 15 + 1) / 8] * 4)
    assert results["energy_prefill_j_per_token"].samples == pytest.approx([10 / 100] * 4)
    assert results["energy_decode_j_per_token"].samples == pytest.approx([15 / 6] * 4)
    assert {one.origin for one in results.values()} == {"measured"}
    whole = results["energy_j_per_token"].method
    assert "4 rounds; a steady source" in whole
    assert "5 W of idle power, measured before over 2 s, taken off" in whole
    assert "psys draws" in whole


def test_images_have_no_phases() -> None:
    source = Steady()
    book = Meter((source,)).book(new_tokens=10)
    with book.round():
        source.pass_time(1.0, 40)
    (only,) = energy(book, None, "", False)
    assert only.metric == "energy_j_per_token"
    assert only.value == pytest.approx(4.0)


def test_the_unchanged_models_rounds_become_the_reference() -> None:
    source = Steady()
    found = Meter((source,))
    ours, theirs = found.book(8, 100, 2), found.book(8, 100, 2)
    for _ in range(3):
        serve(ours, source)
        serve(theirs, source, decode=1.0)
    results = by_name(energy(ours, theirs, "", True))
    assert results["energy_decode_j_per_token"].samples == pytest.approx([20 / 6] * 3)
    assert results["energy_decode_j_per_token"].reference == pytest.approx([40 / 6] * 3)


def test_short_rounds_are_put_together_until_the_counters_steps_do_not_matter() -> None:
    # 0.1 s a round at 1 ms a step: 50 steps in one round are enough. 10 ms a round: 25 of them.
    assert rounds_needed(0.001, 0.1) == 1
    assert rounds_needed(0.001, 0.05) == 1
    assert rounds_needed(0.001, 0.01) == 25
    # Four prefills of 10 ms a round have four times the ends of one of 40 ms.
    assert rounds_needed(0.001, 0.025) == 4
    assert rounds_needed(0.001, 0.025, laps=4) == 16
    with pytest.raises(ValueError, match="without time"):
        rounds_needed(0.001, 0.0)


@pytest.mark.parametrize("seconds", [0.05, 0.02, 0.01, 0.004])
def test_the_needed_rounds_do_keep_the_noise_under_one_percent(seconds: float) -> None:
    """A counter renewed every 1 ms, read at the ends of rounds that begin at random moments."""
    step = 0.001
    count = rounds_needed(step, seconds)
    begins = np.random.default_rng(5).uniform(0, 1e3, size=(2000, count))
    read = np.floor((begins + seconds) / step) - np.floor(begins / step)
    samples = read.sum(axis=1) * step / (count * seconds)
    assert samples.mean() == pytest.approx(1.0, abs=0.001)
    assert samples.std() < 0.01


def test_grouped_rounds_keep_every_joule_and_pairs_keep_their_partner() -> None:
    source = Steady(resolution_s=0.001)
    found = Meter((source,))
    ours, theirs = found.book(1), found.book(1)
    for i in range(10):
        with ours.round():
            source.pass_time(0.03, 10 + i)
        with theirs.round():
            source.pass_time(0.09, 10)
    (one,) = energy(ours, theirs, "", False)
    # (50 / 30)^2 = 2.8: three rounds a sample, the tenth joins the last.
    assert one.n == 3
    assert one.samples == pytest.approx([0.03 * 11, 0.03 * 14, 0.03 * 17.5])
    assert one.reference == pytest.approx([0.9] * 3)
    assert "3 rounds together make one sample" in one.method


def test_too_few_rounds_are_unavailable_with_the_arithmetic() -> None:
    source = Steady(resolution_s=0.1)
    book = Meter((source,)).book(8, 100, 2)
    for _ in range(5):
        serve(book, source)
    results = by_name(energy(book, None, "", True))
    assert results["energy_j_per_token"].origin == "unavailable"
    assert "takes 1.6e+03 ms" in results["energy_j_per_token"].method
    assert "needs 10 rounds, 5 were timed" in results["energy_j_per_token"].method


def test_a_counter_that_fails_between_makes_all_of_it_unavailable() -> None:
    source = Steady()
    book = Meter((source,)).book(8, 100, 2)
    serve(book, source)
    source.broken = "the counter was reset"
    serve(book, source)
    results = energy(book, None, "", True)
    assert [one.method for one in results] == ["the counter was reset"] * 3
    assert len(book.rounds) == 1


def test_a_draw_below_idle_is_no_energy() -> None:
    source = Steady()
    found = Meter((source,))
    found.idle_watts = 50.0
    book = found.book(8, 100, 2)
    serve(book, source)
    assert "lost in the noise of idle power" in energy(book, None, "", True)[0].method


def test_an_estimate_has_wide_bounds_and_keeps_the_pairs() -> None:
    source = Steady()
    source.origin, source.spread, source.draws_idle = "estimated", (0.5, 2.5), False
    found = Meter((source,))
    ours, theirs = found.book(10), found.book(10)
    for book in (ours, theirs, ours, theirs):
        with book.round():
            source.pass_time(1.0, 40)
    (one,) = energy(ours, theirs, "", False)
    assert one.origin == "estimated"
    assert one.value == pytest.approx(4.0)
    assert one.interval() == (pytest.approx(2.0), pytest.approx(10.0))
    # The stated watts are the same on both sides: what is wrong about them cancels in the ratio.
    assert one.reference == pytest.approx((4.0, 4.0))
    assert "estimate: the truth is taken to lie at 0.5 to 2.5 times it" in one.method


def test_one_new_token_has_no_decode() -> None:
    source = Steady()
    book = Meter((source,)).book(new_tokens=1, prompt_tokens=9, requests=1)
    with book.round():
        book.mark(PREFILL)
        source.pass_time(1.0, 5)
        book.mark("")
    results = by_name(energy(book, None, "", True))
    assert results["energy_prefill_j_per_token"].value == pytest.approx(5 / 9)
    assert results["energy_decode_j_per_token"].value is None


def test_an_error_within_a_round_leaves_it_out() -> None:
    source = Steady()
    book = Meter((source,)).book(1)

    def fails() -> None:
        with book.round():
            source.pass_time(1.0, 5)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fails()
    with book.round():
        source.pass_time(2.0, 5)
    (one,) = energy(book, None, "", False)
    assert one.samples == (pytest.approx(10.0),)


def test_the_best_reader_is_found_and_every_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter.powercap.find, "__defaults__", (tmp_path / "powercap",))
    monkeypatch.setattr(meter.battery.find, "__defaults__", (tmp_path / "supply", 0.0))
    monkeypatch.delenv("TRIMTAB_CPU_WATTS", raising=False)
    none = find_meter("cpu")
    assert none.readers == ()
    assert "does not exist on this machine; to get an estimate set TRIMTAB_CPU_WATTS" in none.why
    none.measure_idle()
    book = none.book(1)
    with book.round():
        book.mark("prefill")
    assert energy(book, None, "", False)[0].method == none.why
    monkeypatch.setenv("TRIMTAB_CPU_WATTS", "30")
    assert find_meter("cpu").origin == "estimated"
    cell = tmp_path / "supply" / "BAT0"
    cell.mkdir(parents=True)
    (cell / "status").write_text("Discharging")
    (cell / "energy_now").write_text("1000000")
    assert "battery" in find_meter("cpu", seconds=600).readers[0].name
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "99")):
        (zone / name).write_text(text)
    assert find_meter("cpu", seconds=600).readers[0].name == "RAPL counters (package-0)"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in find_meter("cuda").why


def test_rounds_of_a_gpu_are_samples_although_each_is_a_little_off() -> None:
    """A quarter of a second each, with a counter that is renewed every 20 ms."""
    source = Steady(resolution_s=0.02)
    for updates, samples in ((50.0, 0), (nvml.SAMPLE_UPDATES, 12)):
        book = Meter((source,), "", nvml.IDLE_UPDATES, updates).book(8, 100, 1)
        for _ in range(12):
            with book.round():
                source.pass_time(0.25, 400)
        (one,) = energy(book, None, "", False)
        assert len(one.samples) == samples
    assert one.samples == pytest.approx((400 * 0.25 / 8,) * 12)
    assert "renewed every 20 ms, which adds under 5 % of noise to a sample" in one.method


def test_idle_power_of_a_gpu_is_taken_over_fewer_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty updates of 100 ms would be five seconds of every trial."""
    source = Steady(0.1)
    monkeypatch.setattr(meter.time, "sleep", lambda seconds: source.pass_time(seconds, 80))
    gpu = Meter((source,), idle_updates=nvml.IDLE_UPDATES)
    for found, seconds in ((Meter((source,)), 5.0), (gpu, 1.5)):
        found.measure_idle()
        assert found.idle_seconds == pytest.approx(seconds)
        assert found.idle_watts == pytest.approx(80)


def test_a_gpu_is_read_together_with_the_processor_that_feeds_it() -> None:
    gpu, cpu = Steady(0.1), Steady(0.001)
    both = Meter((gpu, cpu))
    assert both.resolution_s == 0.1
    both.start()
    gpu.pass_time(2.0, 300)
    cpu.pass_time(2.0, 50)
    lap = both.lap()
    assert lap is not None
    assert lap.total == pytest.approx(700.0)
