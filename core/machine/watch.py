"""Who else uses the machine: seconds that our threads waited for a core, and quiet before timing.

Linux tells both; elsewhere they are unknown.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from core.machine import readers

_TASKS = Path("/proc/self/task")
# A round in which our threads waited for longer than this share of it is marked.
DISTURBED = 0.05
# Cores that other processes may use while we call the machine quiet.
QUIET = 0.1


def waited_seconds() -> float | None:
    """Seconds that all threads of this process were ready to run while another process had the
    core, since they began; time stolen by the host of a virtual machine counts too. None where the
    kernel does not tell.
    """
    total = 0
    try:
        for task in os.listdir(_TASKS):
            try:
                total += int(
                    (_TASKS / task / "schedstat")
                    .read_text(encoding="utf-8", errors="replace")
                    .split()[1]
                )
            except FileNotFoundError:
                continue  # the thread has ended
    except (OSError, ValueError, IndexError):
        return None
    spent = readers.cpu_seconds(("cpu",))
    return None if spent is None else total / 1e9 + spent[1]


def others_cores(seconds: float = 0.2) -> float | None:
    """Cores that other processes keep busy, watched for `seconds`; None where it cannot be read."""
    before, own, began = readers.cpu_seconds(("cpu",)), time.process_time(), time.perf_counter()
    time.sleep(seconds)
    after = readers.cpu_seconds(("cpu",))
    if before is None or after is None:
        return None
    elapsed = max(time.perf_counter() - began, seconds)
    used = sum(after) - sum(before) - (time.process_time() - own)
    return max(0.0, used) / elapsed


@dataclass(frozen=True)
class Quiet:
    """How the machine was when timing began; `cores` is None where it is unknown."""

    waited_s: float
    cores: float | None

    @property
    def busy(self) -> bool:
        """Whether other processes still took a part of the machine."""
        return self.cores is not None and self.cores > QUIET


def settle(most: float) -> Quiet:
    """Wait until other processes use less than a tenth of a core, at most `most` seconds.

    The pause is also the cool-down between the work of preparing and the timed work.
    """
    began = time.perf_counter()
    while True:
        cores = others_cores()
        waited = time.perf_counter() - began
        if cores is None or cores <= QUIET or waited >= most:
            return Quiet(waited, cores)
