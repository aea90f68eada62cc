"""The limits of this machine, measured once and kept for each environment.

`calibrate` runs torch in this process for less than a minute, as `trimtab doctor --calibrate` asks.
Pages never do: they read what is `stored`, which imports no torch. What is kept, and in which file,
is core.machine.calibration.record's business; how it is measured,
core.machine.calibration.measure's.
"""

from __future__ import annotations

from collections.abc import Callable

from core.machine.calibration.measure import measure
from core.machine.calibration.record import VERSION, Calibration, Rate, folder, store, stored
from core.machine.environment import environment

__all__ = [
    "DISTURBED",
    "FORMATS",
    "SECONDS",
    "VERSION",
    "Calibration",
    "Rate",
    "calibrate",
    "ensure",
    "folder",
    "store",
    "stored",
]

FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8")
# All of it, with importing torch, stays under a minute.
SECONDS = 24.0
# Cores that other processes may take while the limits are still to be believed.
DISTURBED = 0.2
# A trial that needs limits and finds none measures them so quickly.
QUICK_SECONDS = 8.0


def calibrate(
    seconds: float = SECONDS,
    device: str | None = None,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Calibration:
    """Measure bandwidth, matrix peaks and launch overheads in this process, in about `seconds`.

    Each rate is the best of its repetitions (a limit is asked for, not a typical value), with their
    median and spread beside it. A format that torch cannot multiply here is left out.
    """
    return measure(seconds, device, report)


def ensure() -> Calibration:
    """The calibration of this environment; measured with torch, in seconds, when none is kept."""
    calibration = stored(environment()[0])
    if calibration is None:
        calibration = calibrate(QUICK_SECONDS)
        store(calibration)
    return calibration
