"""Where a run on a GPU works, what it was told by the environment, and how much time is left.

OUT                     the folder of the results
TRIMTAB_GPU_WORK        scratch, gone when the run ends
TRIMTAB_GPU_SECONDS     the end of all (480; 110 in a rehearsal)
TRIMTAB_GPU_PARTS       only these parts, by name, with commas between
TRIMTAB_GPU_STUDIES     only these studies, likewise
TRIMTAB_GPU_REHEARSAL   1: the processor stands in for the GPU, with tiny shapes
TRIMTAB_GPU_BREAK       PART:crash, PART:hang or PART:exit, with commas between: for tests
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECONDS, REHEARSAL_SECONDS = 480.0, 110.0


@dataclass(frozen=True)
class Place:
    """Folders and settings of a run; `until` is on the clock of time.monotonic."""

    out: Path
    work: Path
    until: float
    rehearsal: bool = False

    @property
    def left(self) -> float:
        """Seconds until `until`, at least 0."""
        return max(0.0, self.until - time.monotonic())

    @property
    def device(self) -> str:
        """`cuda`, or `cpu` in a rehearsal."""
        return "cpu" if self.rehearsal else "cuda"


def rehearsing(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the processor stands in for the GPU."""
    return environment.get("TRIMTAB_GPU_REHEARSAL", "") not in ("", "0")


def total_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """When all must have ended; ValueError for what is no such number."""
    usual = REHEARSAL_SECONDS if rehearsing(environment) else SECONDS
    text = environment.get("TRIMTAB_GPU_SECONDS") or str(usual)
    if not text.isdecimal() and text != str(usual):
        raise ValueError(f"TRIMTAB_GPU_SECONDS: {text!r} is no whole number of seconds")
    return float(text)


def named(variable: str, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The words of a variable that has commas between them; empty when it is not set."""
    return tuple(word.strip() for word in environment.get(variable, "").split(",") if word.strip())


def here(seconds: float, environment: Mapping[str, str] = os.environ) -> Place:
    """The place that the environment names, with so many seconds from now."""
    return Place(
        Path(environment["OUT"]),
        Path(environment["TRIMTAB_GPU_WORK"]),
        time.monotonic() + seconds,
        rehearsing(environment),
    )
