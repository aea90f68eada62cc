"""Owns what a trial holds in memory: the process's books, every tensor of the weights, the peak of
a round by tensor and by page, and the size on disk.

`measure_memory` gives the measurements of a trial; the prediction they are compared with is
core.predict.account. Importing this imports no torch.
"""

from core.measure.memory.disk import measure_disk
from core.measure.memory.process import (
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
)
from core.measure.memory.trial import measure_memory

__all__ = [
    "measure_disk",
    "measure_memory",
    "peak_resident_bytes",
    "reset_peak",
    "resident_bytes",
]
