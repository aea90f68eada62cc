"""Runs parts one after another, each a child in a process group of its own, within one end of all.

A part that fails, crashes or hangs does not stop the others; the time that it does not use is given
to later ones. Knows nothing of what the parts do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# How often the results are refreshed while a part runs, in seconds.
REFRESH_S = 5.0
POLL_S = 0.05
# A part that would have less of what is kept for it is not begun.
FEWEST = 0.5
DONE, FAILED, CRASHED, STOPPED, NOT_REACHED = "done", "failed", "crashed", "stopped", "not reached"


@dataclass(frozen=True)
class Part:
    """One part: the `seconds` that are kept for it, and the `most` that it takes when earlier ones
    left some. Its command gets the seconds of this run as its last word.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    most: float


@dataclass(frozen=True)
class Outcome:
    """How a part ended after `seconds` of its `limit`: `status` is its exit status, minus a
    signal's number, or None where there is none.
    """

    name: str
    state: str
    seconds: float = 0.0
    limit: float = 0.0
    status: int | None = None


def run(
    parts: Sequence[Part],
    until: float,
    logs: Path,
    refresh: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """The outcome of each part, as soon as it ended; output goes to NAME.log in `logs`. `until`
    is on time.monotonic's clock. `refresh` is called every REFRESH_S and after each part.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for position, part in enumerate(parts):
        kept = sum(later.seconds for later in parts[position + 1 :])
        limit = min(part.most, until - time.monotonic() - kept)
        if limit <= FEWEST * part.seconds:
            yield Outcome(part.name, NOT_REACHED)
            continue
        outcome = _run(part, limit, logs / f"{part.name}.log", refresh)
        refresh()
        yield outcome


def _run(part: Part, limit: float, log: Path, refresh: Callable[[], None]) -> Outcome:
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*part.command, f"{limit:.3f}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            stopped = not _ended(process, began + limit, refresh)
        finally:
            end(process)
    status = process.returncode
    state = STOPPED if stopped else DONE if status == 0 else FAILED if status > 0 else CRASHED
    return Outcome(part.name, state, time.monotonic() - began, limit, status)


def _ended(process: subprocess.Popen[bytes], until: float, refresh: Callable[[], None]) -> bool:
    """Whether it ended before `until`."""
    due = time.monotonic() + REFRESH_S
    while process.poll() is None:
        now = time.monotonic()
        if now >= until:
            return False
        if now >= due:
            refresh()
            due = time.monotonic() + REFRESH_S
        time.sleep(min(POLL_S, max(0.0, until - now)))
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its group and all that descends from it, also in groups of their own."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        # A process that waits for a hung driver cannot be killed; the others go on without it.
        process.wait(5)
