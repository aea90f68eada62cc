"""Measures what this machine can do at most: bytes per second and operations per second by format.

`calibrate` runs torch in this process for a few seconds; `trimtab doctor --calibrate` calls it.
Pages never do: they read what is `stored`, which imports no torch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.ids import now
from core.measure.environment import environment

VERSION = 1
FORMATS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Calibration:
    """The best rates seen on one environment: `bandwidth` in bytes/s (read plus write of a copy),
    `peaks` in operations/s by format (2 per multiply-accumulate); a format that cannot run is left
    out.
    """

    environment: str
    taken_at: str
    device: str
    bandwidth: float
    peaks: tuple[tuple[str, float], ...]


def folder() -> Path:
    """Where calibrations are kept: `trimtab` in the user's cache folder (XDG_CACHE_HOME is
    honoured).
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trimtab"


def stored(environment_id: str) -> Calibration | None:
    """The calibration kept for this environment; None when there is none or the file is damaged."""
    try:
        data = json.loads(_path(environment_id).read_text(encoding="utf-8"))
        peaks = tuple((str(name), float(rate)) for name, rate in data["peaks"])
        found = Calibration(
            data["environment"], data["taken_at"], data["device"], float(data["bandwidth"]), peaks
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    rates = [found.bandwidth, *(rate for _, rate in found.peaks)]
    sound = all(math.isfinite(rate) and rate > 0 for rate in rates)
    return (
        found
        if sound and found.environment == environment_id and data.get("version") == VERSION
        else None
    )


def store(calibration: Calibration) -> Path:
    """Keep a calibration for its environment, in place of an older one; returns the file."""
    path = _path(calibration.environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(
        json.dumps({"version": VERSION, **asdict(calibration)}, indent=1), encoding="utf-8"
    )
    draft.replace(path)
    return path


def ensure() -> Calibration:
    """The calibration of this environment; measured with torch, in seconds, when none is kept."""
    found = stored(environment()[0])
    if found is None:
        found = calibrate()
        store(found)
    return found


def _path(environment_id: str) -> Path:
    return folder() / f"calibration-{environment_id}.json"


def calibrate(seconds: float = 6.0, device: str | None = None) -> Calibration:
    """Measure copy bandwidth and matmul peaks in this process, in about `seconds` for all.

    The copy moves 128 MiB (512 MiB on a GPU), more than any cache here holds. Each rate is the best
    of its repetitions: a limit is asked for, not a typical value. A format that torch cannot
    multiply here is left out.
    """
    import torch

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    share = seconds / (1 + len(FORMATS))
    bandwidth = _bandwidth(torch, where, share)
    peaks = []
    for name in FORMATS:
        rate = _matmul_rate(torch, where, name, share)
        if rate is not None:
            peaks.append((name, rate))
    key, _ = environment()
    return Calibration(key, now(), where, bandwidth, tuple(peaks))


def _bandwidth(torch: Any, device: str, seconds: float) -> float:
    """Bytes/s of a copy, read and written bytes counted."""
    count = (512 if device == "cuda" else 128) * 1024 * 1024
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * count / _best(torch, device, lambda: target.copy_(source), seconds)


def _matmul_rate(torch: Any, device: str, name: str, seconds: float) -> float | None:
    """Operations/s of a square product in the format `name`; None when torch has none here."""
    size = 8192 if device == "cuda" else 1024
    try:
        if name == "int8":
            a = torch.ones((size, size), dtype=torch.int8, device=device)
            b = torch.ones((size, size), dtype=torch.int8, device=device).t()
            best = _best(torch, device, lambda: torch._int_mm(a, b), seconds)
        else:
            kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
            c = torch.ones((size, size), dtype=kind, device=device)
            best = _best(torch, device, lambda: c @ c, seconds)
    except (RuntimeError, NotImplementedError):
        return None
    return 2.0 * size**3 / best


def _best(torch: Any, device: str, run: Callable[[], Any], seconds: float) -> float:
    """Shortest wall time of one call, over at least three calls after one to warm up, for about
    `seconds`.
    """

    def timed() -> float:
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    begun = time.perf_counter()
    timed()
    best, calls = math.inf, 0
    while calls < 3 or time.perf_counter() - begun < seconds:
        best, calls = min(best, timed()), calls + 1
    return best
