"""The parts of a run on a GPU, in their order, and how its time is shared among them."""

from __future__ import annotations

import sys

from tests.evidence.gpu.place import SECONDS
from tests.evidence.gpu.schedule import Part

# What each part is called, and the module beside this file whose `run(place)` does it.
MODULES = {
    "environment": "environment",
    "tests": "gpu_tests",
    "energy": "energy",
}
# Of SECONDS: what is kept for each part, and what it takes at most when earlier ones left time.
SHARES = {
    "environment": (45.0, 60.0),
    "tests": (80.0, 120.0),
    "energy": (25.0, 30.0),
}
# Kept for the summary and the last look at the results.
CLOSING = 10.0


def parts(seconds: float, only: tuple[str, ...] = ()) -> tuple[Part, ...]:
    """Every part, or those named, sharing `seconds`; ValueError names one that is not known."""
    unknown = [name for name in only if name not in MODULES]
    if unknown:
        raise ValueError(
            f"TRIMTAB_GPU_PARTS: there is no part {unknown[0]!r}; known are {', '.join(MODULES)}"
        )
    scale = seconds / SECONDS
    return tuple(
        Part(
            name,
            (sys.executable, "-m", "tests.evidence.gpu.part", name),
            kept * scale,
            # Alone or with few others a part may go on for longer.
            seconds if only else most * scale,
        )
        for name, (kept, most) in SHARES.items()
        if not only or name in only
    )
