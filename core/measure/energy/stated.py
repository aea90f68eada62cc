"""An estimate where nothing can be read: stated watts times the share of the cores that worked.

    joules = 0.8 x watts x (processor seconds of this process / cores)

0.8 takes a fifth of the stated watts as idle, which is not counted. A package may draw half of its
stated power or, for a while, a good deal more, and one busy core of many draws more than its share:
the true joules are taken to lie between 0.5 and 2.5 times that. These are assumptions; the number
is `estimated`, never `measured`.
"""

from __future__ import annotations

import math
import os
import time

from core.errors import BadInput
from core.measure.energy.reader import Lap
from core.target import Target

VARIABLE = "TRIMTAB_CPU_WATTS"
ABOVE_IDLE = 0.8
SPREAD = (0.5, 2.5)


class StatedReader:
    """Joules of the processor by arithmetic; see core.measure.energy.reader.Reader."""

    resolution_s = 1e-6
    origin = "estimated"
    spread = SPREAD
    draws_idle = False

    def __init__(self, watts: float, cores: int, source: str) -> None:
        self._watts = watts
        self._cores = cores
        self._used = self._at = 0.0
        self.name = (
            f"{ABOVE_IDLE:g} x {watts:g} W ({source}) x this process's share of {cores} cores"
        )

    def start(self) -> None:
        """Read the clocks."""
        self._used, self._at = _processor_seconds(), time.perf_counter()

    def lap(self) -> Lap:
        """Estimated joules since the last reading."""
        used, at = _processor_seconds(), time.perf_counter()
        spent, seconds = used - self._used, at - self._at
        self._used, self._at = used, at
        joules = ABOVE_IDLE * self._watts * spent / self._cores
        return Lap(seconds, (("processor", joules),))


def _processor_seconds() -> float:
    """Seconds of all threads of this process and of its children that ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def find(target: Target | None) -> tuple[StatedReader | None, str]:
    """The estimate from this machine's stated power, or None and how to state it.

    Watts are those of the whole processor at full load: the variable TRIMTAB_CPU_WATTS, else the
    target's own when the target is this machine. BadInput when the variable is no number of watts.
    """
    cores = os.cpu_count() or 1
    stated = os.environ.get(VARIABLE, "").strip()
    if stated:
        return StatedReader(_watts(stated), cores, f"{VARIABLE} says so"), ""
    if target is not None and target.local and target.kind == "cpu" and target.power_w:
        return StatedReader(target.power_w, cores, "stated for this machine"), ""
    return None, (
        f"to get an estimate set {VARIABLE} to the watts that this machine's processor draws at"
        " full load"
    )


def _watts(stated: str) -> float:
    try:
        watts = float(stated)
    except ValueError:
        watts = math.nan
    if not 0 < watts < 100_000:
        raise BadInput(f"{VARIABLE} must be a number of watts above 0, not {stated[:40]!r}")
    return watts
