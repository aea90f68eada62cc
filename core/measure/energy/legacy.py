"""The meter that core.measure.serve used before books; goes when serve marks its phases."""

from __future__ import annotations

from core.measure.energy.meter import Meter
from core.measure.energy.powercap import Counter, RaplReader


class EnergyMeter(Meter):
    """start() and stop() over RAPL counters."""

    def __init__(self, found: tuple[Counter, ...]) -> None:
        super().__init__((RaplReader(found),) if found else (), "no counter")

    def stop(self) -> tuple[float, float]:
        """(joules, seconds) since start()."""
        lap = self.lap()
        return (0.0, 0.0) if lap is None else (lap.total, lap.seconds)
