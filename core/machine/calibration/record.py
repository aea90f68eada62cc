"""A calibration and its file: the rates that one environment was seen to reach. Measures nothing.

The file is `calibration-<environment id>.json` in `trimtab` of the user's cache folder, one object:

    version      2
    environment  the id that it belongs to; another id has no calibration
    taken_at     naive UTC time; `seconds`: how long measuring took
    device       cpu or cuda
    bandwidth    bytes/s of the best large copy, read and written bytes counted
    peaks        [[format, operations/s], ...], the best of all shapes
    others_cores cores that other processes kept busy meanwhile, null when unknown
    rates        every rate as it was measured, with the fields of Rate
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

VERSION = 2


@dataclass(frozen=True)
class Rate:
    """One limit: the `best` of `n` repetitions, their `median`, and the quarter below `low` and
    above `high`.

    `name` is read, copy or triad (unit B/s, `size` the bytes of one array), peak (op/s, 2 per
    multiply-accumulate, in `format`), or overhead (s a call, `format` says of what). `threads` is 0
    where a device decides itself. The best is the limit; a median far from it tells of a busy
    machine.
    """

    name: str
    unit: str
    best: float
    median: float
    low: float
    high: float
    n: int
    size: int = 0
    threads: int = 0
    format: str = ""
    how: str = ""

    @property
    def spread(self) -> float:
        """The middle half of the repetitions, as a share of their median."""
        return (self.high - self.low) / self.median


@dataclass(frozen=True)
class Calibration:
    """The best rates seen on one environment: `bandwidth` in bytes/s (read plus write of a copy),
    `peaks` in operations/s by format (2 per multiply-accumulate); a format that cannot run is left
    out. `rates` are all rates behind them.
    """

    environment: str
    taken_at: str
    device: str
    bandwidth: float
    peaks: tuple[tuple[str, float], ...]
    rates: tuple[Rate, ...] = ()
    seconds: float = 0.0
    others_cores: float | None = None

    def peak(self, format_: str) -> float | None:
        """Operations/s in `format_`, or None when it was not measured."""
        return dict(self.peaks).get(format_)

    def of(self, name: str, format_: str = "") -> tuple[Rate, ...]:
        """The rates called `name` (and of `format_`, when given), in the order of measuring."""
        named = (rate for rate in self.rates if rate.name == name)
        return tuple(rate for rate in named if not format_ or rate.format == format_)

    def reading(self) -> tuple[Rate, ...]:
        """The best reading rate of each size, smallest first, whatever the threads."""
        fastest: dict[int, Rate] = {}
        for rate in self.of("read"):
            if rate.size not in fastest or rate.best > fastest[rate.size].best:
                fastest[rate.size] = rate
        return tuple(fastest[size] for size in sorted(fastest))

    def read_bandwidth(self, size: float) -> float | None:
        """Bytes/s at which `size` bytes can be read again and again: a decode step's limit.

        Between two measured sizes on a straight line over logarithms, beyond them the nearest. A
        size reaches at least what any larger one does: a dip is another process's work. None when
        reading was not measured.
        """
        points: list[tuple[int, float]] = []
        for rate in reversed(self.reading()):
            points.append((rate.size, max(rate.best, points[-1][1] if points else 0.0)))
        points.reverse()
        if not points or size <= 0:
            return None
        if size <= points[0][0]:
            return points[0][1]
        for (left, before), (right, after) in pairwise(points):
            if size <= right:
                share = math.log(size / left) / math.log(right / left)
                return float(before * (after / before) ** share)
        return points[-1][1]

    def memory_bandwidth(self) -> float | None:
        """Bytes/s of reading far more than the caches hold."""
        points = self.reading()
        return points[-1].best if points else None


def folder() -> Path:
    """Where calibrations are kept: `trimtab` in the user's cache folder (XDG_CACHE_HOME is
    honoured).
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trimtab"


def stored(environment_id: str) -> Calibration | None:
    """The calibration kept for this environment; None when there is none or the file is damaged."""
    try:
        data = json.loads(path_of(environment_id).read_text(encoding="utf-8"))
        calibration = from_data(data)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return calibration if calibration.environment == environment_id else None


def store(calibration: Calibration) -> Path:
    """Keep a calibration for its environment, in place of an older one; returns the file."""
    path = path_of(calibration.environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(to_data(calibration), indent=1), encoding="utf-8")
    draft.replace(path)
    return path


def path_of(environment_id: str) -> Path:
    """The file of an environment's calibration; it need not exist."""
    return folder() / f"calibration-{environment_id}.json"


def to_data(calibration: Calibration) -> dict[str, Any]:
    """JSON-ready data, as the file has it."""
    return {"version": VERSION, **asdict(calibration)}


def from_data(data: Any) -> Calibration:
    """The calibration of to_data(); ValueError, KeyError or TypeError when it is none, of another
    version, or a rate is not above 0 and finite.
    """
    if data["version"] != VERSION:
        raise ValueError("another version")
    others = data["others_cores"]
    calibration = Calibration(
        str(data["environment"]),
        str(data["taken_at"]),
        str(data["device"]),
        float(data["bandwidth"]),
        tuple((str(name), float(rate)) for name, rate in data["peaks"]),
        tuple(_rate(rate) for rate in data["rates"]),
        float(data["seconds"]),
        None if others is None else float(others),
    )
    _sound(calibration.bandwidth, *(rate for _, rate in calibration.peaks))
    for rate in calibration.rates:
        _sound(rate.best, rate.median, rate.low, rate.high)
        if rate.name == "read":
            _sound(rate.size)
    return calibration


def _rate(data: Any) -> Rate:
    kinds = {"str": str, "float": float, "int": int}
    return Rate(**{field.name: kinds[str(field.type)](data[field.name]) for field in fields(Rate)})


def _sound(*values: float) -> None:
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError("a rate is not above 0")


def summary(
    name: str,
    unit: str,
    samples: Iterable[float],
    *,
    size: int = 0,
    threads: int = 0,
    format: str = "",
    how: str = "",
) -> Rate:
    """The Rate of raw samples: the best is the largest rate, or the shortest time."""
    ordered = sorted(samples)
    n = len(ordered)
    best = ordered[0] if unit == "s" else ordered[-1]
    low, median, high = (ordered[round(share * (n - 1))] for share in (0.25, 0.5, 0.75))
    return Rate(name, unit, best, median, low, high, n, size, threads, format, how)
