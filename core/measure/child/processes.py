"""Processes as the kernel's books (/proc, Linux) show them: a trial's family, and how to end it
without leaving one behind.

A process is known by its id and its start in clock ticks after boot, so that a recycled id is never
taken for it: psutil tells the start by the clock, which may be set meanwhile, and no session. What
a trial may use is said in limits.py, who looks is watchdog.py. Where there is no /proc a family is
empty and only the process group is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

TRIAL = "TRIMTAB_TRIAL"
OWNER = "TRIMTAB_OWNER"
_PROC = Path("/proc")
_DEAD = "ZX"


@dataclass(frozen=True)
class Process:
    """A line of the kernel's table: `start` in clock ticks after boot, `cpu_s` with that of ended
    children, `resident` in bytes, `state` one letter (T is stopped, Z a corpse).
    """

    pid: int
    start: int
    parent: int
    group: int
    session: int
    state: str
    threads: int
    cpu_s: float
    resident: int


def find(pid: int) -> Process | None:
    """The process with this id now, corpses included; None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        # The name may hold blanks and brackets: what follows the last bracket is regular.
        part = text[text.rindex(")") + 2 :].split()
        return Process(
            pid,
            int(part[19]),
            int(part[1]),
            int(part[2]),
            int(part[3]),
            part[0],
            int(part[17]),
            sum(int(ticks) for ticks in part[11:15]) / os.sysconf("SC_CLK_TCK"),
            int(part[21]) * os.sysconf("SC_PAGE_SIZE"),
        )
    except (OSError, ValueError, IndexError):
        return None


def table() -> dict[int, Process]:
    """Every process of this machine that has not died."""
    processes = (find(pid) for pid in psutil.pids())
    return {
        process.pid: process
        for process in processes
        if process is not None and process.state not in _DEAD
    }


def marks(pid: int) -> dict[str, str]:
    """The marks that this program's children carry in the environment they were started with."""
    with contextlib.suppress(psutil.Error, OSError):
        carried = psutil.Process(pid).environ()
        return {name: carried[name] for name in (TRIAL, OWNER) if name in carried}
    return {}


def owner_mark() -> str:
    """Who starts a process: this one's id and start time, the boot, and the namespace that the id
    counts in.
    """
    own = find(os.getpid())
    return f"{os.getpid()}.{own.start if own else 0}.{_boot()}.{_namespace()}"


def owner_lives(mark: str) -> bool | None:
    """Whether the process of an owner_mark() still runs; None when that cannot be known from
    here.
    """
    part = mark.split(".")
    if len(part) != 4 or not part[0].isdigit() or not part[1].isdigit():
        return None
    if part[3] != _namespace():
        return None
    process = find(int(part[0]))
    same_boot = part[2] == _boot()
    return (
        same_boot
        and process is not None
        and process.state not in _DEAD
        and process.start == int(part[1])
    )


class ProcessTree:
    """A trial's process and everything it started, wherever that went: children, its session, what
    carries its mark, and what was once seen to be one of these.
    """

    def __init__(self, pid: int, trial_id: str) -> None:
        process = find(pid)
        self.pid = pid
        self._start = process.start if process else 0
        self._trial = trial_id
        self._known: set[tuple[int, int]] = {(pid, self._start)} if process else set()
        self._strangers: set[tuple[int, int]] = set()

    def members(self) -> list[Process]:
        """Those that live now, the first process included."""
        now = table()
        own = {pid: process for pid, process in now.items() if self._is_marked(process)}
        grew = True
        while grew:
            added = [
                process
                for process in now.values()
                if process.pid not in own and process.parent in own
            ]
            own.update((process.pid, process) for process in added)
            grew = bool(added)
        self._known.update((process.pid, process.start) for process in own.values())
        return list(own.values())

    def kill(self, seconds: float = 10.0) -> list[Process]:
        """End every member, again and again until none lives; returns those that still do after
        `seconds`.
        """
        over = time.monotonic() + seconds
        while True:
            living = self.members()
            if not living or time.monotonic() > over:
                return living
            pids = {pid for pid, _ in self._known}
            # A group dies at one blow: what forks faster than it is found cannot outrun that.
            for group in {process.group for process in living if process.group in pids}:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
            for process in living:
                kill(process)
            time.sleep(0.01)

    def _is_marked(self, process: Process) -> bool:
        key = (process.pid, process.start)
        if key in self._known:
            return True
        if key in self._strangers or process.start < self._start or process.pid == os.getpid():
            return False
        if process.session == self.pid or marks(process.pid).get(TRIAL) == self._trial:
            return True
        self._strangers.add(key)
        return False


def kill(process: Process) -> None:
    """SIGKILL to exactly this process; nothing happens when its id belongs to another by now."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(process.pid)
        try:
            running = find(process.pid)
            if running is not None and running.start == process.start:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def shared_bytes(members: list[Process]) -> int:
    """Memory of the members with every shared page counted once (PSS); their resident sizes where
    the kernel does not tell.
    """
    return sum(_proportional(member) for member in members)


def _proportional(process: Process) -> int:
    with contextlib.suppress(psutil.Error, OSError):
        return int(psutil.Process(process.pid).memory_full_info().pss)
    return process.resident


def kernel_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since boot; None when unknown."""
    try:
        lines = (_PROC / "vmstat").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _boot() -> str:
    try:
        return (
            (_PROC / "sys/kernel/random/boot_id")
            .read_text(encoding="utf-8", errors="replace")
            .strip()
            .split("-")[0]
        )
    except OSError:
        return "unknown"


def _namespace() -> str:
    try:
        return str(os.stat(_PROC / "self/ns/pid").st_ino)
    except OSError:
        return "unknown"
