"""The parts of a run on a GPU, in their order, and how its time is shared among them."""

from __future__ import annotations

import sys

from tests.evidence.gpu.place import REHEARSAL_SECONDS, SECONDS
from tests.evidence.gpu.schedule import Part

# What each part is called, and the module beside this file whose `run(place)` does it.
MODULES = {
    "environment": "environment",
    "tests": "gpu_tests",
    "bench": "bench",
    "studies": "studies",
    "energy": "energy",
    "graph": "graph",
    "figures": "figures",
}
# Of SECONDS: what is kept for each part, and what it takes at most when earlier ones left time.
SHARES = {
    "environment": (45.0, 60.0),
    "tests": (75.0, 120.0),
    "bench": (70.0, 100.0),
    "studies": (190.0, SECONDS),
    "energy": (45.0, 75.0),
    "graph": (25.0, 40.0),
    "figures": (15.0, 15.0),
}
# Of REHEARSAL_SECONDS: there most of the time goes into starting processes.
REHEARSED = {
    "environment": (18.0, 30.0),
    "tests": (14.0, 40.0),
    "bench": (12.0, 30.0),
    "studies": (38.0, REHEARSAL_SECONDS),
    "energy": (8.0, 12.0),
    "graph": (10.0, 20.0),
    "figures": (7.0, 7.0),
}
# The share of all that is kept for the summary and the last look at the results.
CLOSING = 0.02


def parts(seconds: float, rehearsal: bool = False, only: tuple[str, ...] = ()) -> tuple[Part, ...]:
    """Every part, or those named, sharing `seconds`; ValueError names one that is not known."""
    unknown = [name for name in only if name not in MODULES]
    if unknown:
        raise ValueError(
            f"TRIMTAB_GPU_PARTS: there is no part {unknown[0]!r}; known are {', '.join(MODULES)}"
        )
    shares = REHEARSED if rehearsal else SHARES
    scale = seconds / (REHEARSAL_SECONDS if rehearsal else SECONDS)
    return tuple(
        Part(
            name,
            (sys.executable, "-m", "tests.evidence.gpu.part", name),
            kept * scale,
            # Alone or with few others a part may go on for longer.
            seconds if only else most * scale,
        )
        for name, (kept, most) in shares.items()
        if not only or name in only
    )
