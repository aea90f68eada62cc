"""What every energy reader offers, and how long it must be watched for an honest number.

Owns the protocol alone: no file and no library is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from core.errors import TrimtabError

# A span must be this many updates of a counter long: its two ends then add under 1 % of noise.
UPDATES = 50.0


class Unreadable(TrimtabError):
    """A counter that could be read before tells nothing usable about this span; says why."""


@dataclass(frozen=True)
class Lap:
    """Joules by component over `seconds`; `beside` are components that are parts or wholes of the
    others (the platform around the packages) and must not be added to them.
    """

    seconds: float
    joules: tuple[tuple[str, float], ...]
    beside: tuple[tuple[str, float], ...] = ()

    @property
    def total(self) -> float:
        """Joules of all components that do not overlap."""
        return sum(value for _, value in self.joules)


class Reader(Protocol):
    """Energy since a moment.

    `resolution_s` is the time between two updates of what is read; `origin` is `measured` for
    counters and `estimated` for samples and models, whose true joules lie within `spread` times the
    ones given; `draws_idle` says that the joules contain what the device draws when nothing runs.
    """

    name: str
    resolution_s: float
    origin: str
    spread: tuple[float, float]
    draws_idle: bool

    def start(self) -> None:
        """The span begins now; Unreadable when the counter cannot be read any more."""

    def lap(self) -> Lap:
        """Joules since start() or the last lap(), which begins anew; Unreadable when it cannot be
        told.
        """


def rounds_needed(
    resolution_s: float, seconds: float, laps: int = 1, updates: float = UPDATES
) -> int:
    """How many rounds make one sample: the fewest whose boundaries add no more noise than those of
    one span of so many updates.

    A lap's two ends are each off by up to one update, evenly: a standard deviation of 0.41 updates
    a lap, growing with the root of the number of laps while the joules grow with the number itself.
    50 updates in one lap give 0.8 %, and n rounds of `laps` laps with `seconds` in all each give
    as little when n >= (50 x resolution)^2 x laps / seconds^2. See `noise_of`.
    """
    if seconds <= 0:
        raise ValueError("a round without time has no energy")
    wanted = (updates * resolution_s / seconds) ** 2 * laps
    return max(1, -int(-wanted // 1))


def noise_of(updates: float) -> float:
    """The share of a span's joules that its ends add as noise: two even errors of up to an update,
    so one standard deviation of 1 / sqrt(6).
    """
    return float(6**-0.5 / updates)
