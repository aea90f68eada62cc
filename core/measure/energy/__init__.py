"""Owns the energy that a trial draws: readers of counters, the marks between phases, the estimate.

One reader a file: powercap (RAPL of Intel and AMD), nvml (NVIDIA), battery (laptops), stated (an
estimate from stated watts). Not read: Apple's counters, which need root and a tool that runs beside
the trial; hwmon sensors, whose names differ by board and which show watts of rails nobody names;
AMD's GPUs. Nothing is read at import.
"""

from core.measure.energy.meter import Book, Meter, find_meter
from core.measure.energy.powercap import Counter, counters
from core.measure.energy.report import energy

__all__ = ["Book", "Counter", "Meter", "counters", "energy", "find_meter"]
