"""What a trial may use before it is ended: every number with its reason. Who looks is
watchdog.py.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
from dataclasses import dataclass

from core.machine.environment import available_bytes
from core.plan import Plan
from core.planner.presets import preset as find_preset

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True)
class TrialLimits:
    """Seconds, bytes and counts for one attempt of a trial; None means that it is not limited.

    wall_s         the preset's: a trial that spins is alive by every other sign.
    cpu_s          the wall time on every core, and a minute: it ends a spinning child whose
                   supervisor hangs, and can never end one that the wall limit allows.
    memory_bytes   resident memory of the whole process tree. What is free at the start less the
                   reserve, so that a trial ends with a sentence before the kernel kills something.
    reserve_bytes  what stays free for the rest of the machine; a trial fills at most about half a
                   gigabyte between two looks.
    address_bytes  address space on a CPU, so that one huge allocation fails in the trial itself.
                   Libraries map some gigabytes that they never touch, CUDA far more: never there.
    file_bytes     any one file. The largest that a trial may write is a downloaded model: its
                   weights in fp32 with some room.
    open_files     a leak is noticed; loading and compiling open some hundred.
    processes      of the tree. A compiler pool starts up to 32; a fork storm passes this at once.
    threads        of the tree: every core a few times for each library with a pool of its own.
    disk_bytes     free space that must remain where the journals are, so that all can end well.
    line_bytes     one event. The largest holds the samples of one metric: some ten thousand.
    output_bytes   all events of one attempt.
    beat_s         how often a trial says that it lives.
    notice_s       without a beat for this long it is shown as stuck,
    silence_s      and for this long it is ended: fifteen beats in a row were missed.
    starting_s     the same while torch is imported, which can hold a slow disk and the
                   interpreter.
    idle_s         it beats, but the tree has not used the processor and no event came: it waits
                   for what will never come. Nothing in a trial waits longer than seconds.
    attempts       a crash may be a rare race; three in a row are not.
    """

    wall_s: float
    cpu_s: int
    memory_bytes: int
    reserve_bytes: int
    address_bytes: int | None
    file_bytes: int
    open_files: int = 4096
    processes: int = 160
    threads: int = 2048
    disk_bytes: int = 64 * _MIB
    line_bytes: int = 16 * _MIB
    output_bytes: int = 256 * _MIB
    beat_s: float = 2.0
    notice_s: float = 10.0
    silence_s: float = 30.0
    starting_s: float = 90.0
    idle_s: float = 60.0
    attempts: int = 3


# Address space that libraries map beyond what they use; an RLIMIT_AS below it would refuse to
# import torch.
HEADROOM = 6 * _GIB


def limits_for(plan: Plan, preset: str) -> TrialLimits:
    """The limits of a trial that starts now."""
    wall_s = find_preset(preset).wall_s
    free = available_bytes()
    reserve = reserve_bytes(free)
    cores = os.cpu_count() or 1
    cuda = plan.case.target.local and plan.case.target.kind == "cuda"
    return TrialLimits(
        wall_s=wall_s,
        cpu_s=math.ceil(wall_s * cores) + 60,
        memory_bytes=max(free - reserve, 256 * _MIB),
        reserve_bytes=reserve,
        address_bytes=None if cuda else free + HEADROOM,
        file_bytes=2 * _GIB + 4 * plan.case.model.params(),
        processes=128 + 2 * cores,
        threads=1024 + 32 * cores,
    )


def reserve_bytes(free: int) -> int:
    """An eighth of what is free, at least 256 MiB and at most 2 GiB."""
    return min(max(free // 8, 256 * _MIB), 2 * _GIB)


def impose(pid: int, limits: TrialLimits) -> None:
    """Give a running process the limits that the kernel keeps itself (Linux); what it starts
    inherits them. Core dumps are off: they would fill the disk with weights.
    """
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits.cpu_s,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_AS: limits.address_bytes,
    }
    if not hasattr(resource, "prlimit"):
        return
    for kind, most in wanted.items():
        if most is None:
            continue
        # A process that has died meanwhile, or a limit that is tighter already, is no error.
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.prlimit(pid, kind)
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            resource.prlimit(pid, kind, (most, hard))
