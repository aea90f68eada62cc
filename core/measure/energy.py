"""Energy from the processor's own counters (RAPL through powercap), wrap-around included; nothing
is guessed here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """One package's energy counter in microjoules that wraps at `range_uj`."""

    path: Path
    range_uj: int

    def read(self) -> int:
        """Microjoules now; OSError or ValueError when it cannot be read."""
        return int((self.path / "energy_uj").read_text())


def counters(root: Path = POWERCAP) -> tuple[tuple[Counter, ...], str]:
    """The package counters, or none and the sentence that says why."""
    if not root.is_dir():
        return (), f"no energy counter: {root} does not exist on this machine"
    found = []
    for zone in sorted(root.glob("*-rapl:*")):
        try:
            if zone.name.count(":") != 1 or not (zone / "name").read_text().startswith("package"):
                continue
            counter = Counter(zone, int((zone / "max_energy_range_uj").read_text()))
            counter.read()
            if counter.range_uj <= 0:
                raise ValueError("a counter without a range cannot be unwrapped")
        except (OSError, ValueError):
            return (
                (),
                f"the energy counter {zone}/energy_uj cannot be read: it needs root"
                " or a readable powercap",
            )
        found.append(counter)
    if not found:
        return (), "no energy counter: powercap lists no RAPL package on this machine"
    return tuple(found), ""


class EnergyMeter:
    """Joules between start() and stop(), with idle power measured beforehand subtracted on
    request.
    """

    def __init__(self, found: tuple[Counter, ...]) -> None:
        self._counters = found
        self._began: tuple[int, ...] = ()
        self._at = 0.0
        self.idle_watts = 0.0

    def start(self) -> None:
        """Read every counter."""
        self._began = tuple(counter.read() for counter in self._counters)
        self._at = time.perf_counter()

    def stop(self) -> tuple[float, float]:
        """(joules, seconds) since start(); a counter that wrapped once is unwrapped."""
        seconds = time.perf_counter() - self._at
        total = sum(
            (counter.read() - began) % counter.range_uj
            for counter, began in zip(self._counters, self._began, strict=True)
        )
        return total / 1e6, seconds

    def measure_idle(self, seconds: float = 1.0) -> None:
        """Watts while this process does nothing."""
        self.start()
        time.sleep(seconds)
        joules, elapsed = self.stop()
        self.idle_watts = joules / elapsed
