"""Conditions of a trial: two recorded readings, and the notes and cautions they make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.caution import Caution
from core.machine import conditions, readers
from core.machine.conditions import MachineReading, notes

QUIET = MachineReading(100.0, 0.5, 2600, 51.0, 3, 1000.0, 10.0, 50.0)
# Ten seconds later; all two cores' work was ours.
LATER = replace(QUIET, at=110.0, busy_s=1020.0, own_s=70.0)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(readers, "SYS", tmp_path / "sys")
    monkeypatch.setattr(readers, "PROC", tmp_path / "proc")
    monkeypatch.setattr(readers, "affinity", lambda: [0, 1])
    return tmp_path


def cautions(last: MachineReading) -> list[str]:
    return [note.line for note in notes(QUIET, last) if isinstance(note, Caution)]


def test_a_quiet_machine_gives_one_line_and_no_caution() -> None:
    (line,) = notes(QUIET, LATER)
    assert line == (
        "machine before the timed work: load 0.50, 2600 MHz, 51 °C; "
        "after it: load 0.50, 2600 MHz, 51 °C"
    )


def test_cores_that_others_took_are_counted_without_our_own() -> None:
    (line,) = cautions(replace(LATER, busy_s=1028.0))
    assert line == ("caution load: other processes took 0.80 of 2 cores while this was timed")
    assert cautions(replace(LATER, busy_s=1020.9)) == []


def test_stolen_throttled_and_changed_clocks_are_said() -> None:
    (stolen,) = cautions(replace(LATER, stolen_s=11.1))
    assert "took 0.11 cores" in stolen
    # Below a tenth of a core a host keeps house, whatever share of a small machine that is.
    assert cautions(replace(LATER, stolen_s=10.9)) == []
    (throttled,) = cautions(replace(LATER, throttled=5))
    assert "throttled 2 times" in throttled
    (clock,) = cautions(replace(LATER, frequency_mhz=2100))
    assert "from 2600 to 2100 MHz" in clock
    (gpu,) = cautions(replace(LATER, gpus=({"throttled": True, "temperature_c": 90},)))
    assert "GPU" in gpu


def test_a_governor_that_follows_the_load_is_said(machine: Path) -> None:
    file = machine / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    file.parent.mkdir(parents=True)
    file.write_text("powersave\n")
    (line,) = cautions(LATER)
    assert "`powersave`" in line
    file.write_text("performance\n")
    assert cautions(LATER) == []


def test_what_cannot_be_read_is_not_guessed() -> None:
    nothing = MachineReading(0.0, None, None, None, None, None, None, 0.0)
    assert notes(nothing, replace(nothing, at=9.0)) == [
        "machine before the timed work: nothing can be read; after it: nothing can be read"
    ]


def test_too_short_a_time_tells_nothing() -> None:
    assert conditions.others_cores(QUIET, replace(QUIET, at=100.1, busy_s=1001.0)) is None


def test_the_kernels_seconds_of_the_usable_cores_are_summed(machine: Path) -> None:
    (machine / "proc").mkdir()
    (machine / "proc/stat").write_text(
        "cpu 9 9 9 9 9 9 9 9\ncpu0 100 0 50 900 7 0 0 25 0 0\ncpu1 200 0 0 0 0 0 50 0\n"
        "cpu7 999 0 0 0 0 0 0 0\ncpu1 damaged\nintr 5\n"
    )
    found = conditions.read_now()
    assert (found.busy_s, found.stolen_s) == (4.0, 0.25)


def test_a_real_reading_knows_this_process() -> None:
    found = conditions.Conditions()
    assert found.notes()[0].startswith("machine before the timed work: load ")
