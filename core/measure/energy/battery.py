"""Energy that a laptop's battery gives, while it discharges. It feeds the whole machine, screen
included.

Gauges differ and few state how often they are read: ten seconds are assumed, so only a span of
minutes tells anything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from core.measure.energy.reader import UPDATES, Lap, Unreadable

POWER_SUPPLY = Path("/sys/class/power_supply")
RESOLUTION_S = 10.0


@dataclass(frozen=True)
class Gauge:
    """Joules left at 1 volt, or coulombs left at `volts`."""

    left: float
    volts: float

    def joules_until(self, later: Gauge) -> float:
        """What was given in between, at the mean of both voltages: that of the load, not a
        difference of two products, which would call a sagging voltage energy.
        """
        return (self.left - later.left) * (self.volts + later.volts) / 2


class BatteryReader:
    """Joules drawn from all batteries; see core.measure.energy.reader.Reader.

    Idle power cannot be told apart within a trial: the joules are the whole machine's.
    """

    name = "battery gauge (the whole machine, idle power included)"
    resolution_s = RESOLUTION_S
    origin = "measured"
    spread = (1.0, 1.0)
    draws_idle = False

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._began: tuple[Gauge, ...] = ()
        self._at = 0.0

    def start(self) -> None:
        """Read every gauge."""
        self._began, self._at = self._read(), time.perf_counter()

    def lap(self) -> Lap:
        """Joules since the last reading; Unreadable when a charger was plugged in."""
        now, at = self._read(), time.perf_counter()
        began, seconds = self._began, at - self._at
        self._began, self._at = now, at
        joules = sum(a.joules_until(b) for a, b in zip(began, now, strict=True))
        if joules < 0:
            raise Unreadable("the battery's charge rose within the span: unplug the charger")
        return Lap(seconds, (("battery", joules),))

    def _read(self) -> tuple[Gauge, ...]:
        gauges = []
        for folder in self._folders:
            try:
                if _text(folder, "status") != "Discharging":
                    raise Unreadable(
                        f"{folder.name} does not discharge: unplug the charger to measure energy"
                    )
                gauges.append(gauge(folder))
            except (OSError, ValueError) as error:
                raise Unreadable(f"the gauge of {folder.name} cannot be read: {error}") from None
        return tuple(gauges)


def gauge(folder: Path) -> Gauge:
    """What a battery says it holds: energy_now in µWh, else charge_now in µAh at voltage_now in µV.

    OSError or ValueError when neither can be read.
    """
    if (folder / "energy_now").is_file():
        return Gauge(int(_text(folder, "energy_now")) * 3.6e-3, 1.0)
    return Gauge(
        int(_text(folder, "charge_now")) * 3.6e-3, int(_text(folder, "voltage_now")) * 1e-6
    )


def _text(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8", errors="replace").strip()


def find(root: Path = POWER_SUPPLY, seconds: float = 0.0) -> tuple[BatteryReader | None, str]:
    """The reader of this machine's batteries for spans of `seconds` in all, or None and why."""
    folders = tuple(sorted(root.glob("BAT*"))) if root.is_dir() else ()
    if not folders:
        return None, "no battery"
    needed = UPDATES * RESOLUTION_S
    if seconds < needed:
        return None, (
            f"the battery's gauge is read about every {RESOLUTION_S:g} s: {UPDATES:g} readings"
            f" need {needed:g} s of rounds, {seconds:g} s are asked for"
        )
    reader = BatteryReader(folders)
    try:
        reader.start()
    except Unreadable as error:
        return None, str(error)
    return reader, ""
