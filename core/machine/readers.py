"""Reads single facts of this machine from /proc, /sys and programs: text, numbers, cgroups, CPU.

What cannot be read is None or empty, never an error and never a guess. Which facts make an
environment is core.machine.environment's business.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")
SYS = Path("/sys")
DEV = Path("/dev")
# A cgroup of version 1 without a limit says a number near 2^63.
NO_LIMIT = 1 << 60


def text(path: Path) -> str | None:
    """A file's content without white space around it; None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """A file that holds one whole number."""
    content = text(path)
    return int(content) if content is not None and content.isdigit() else None


def output(command: list[str], seconds: float = 5) -> str | None:
    """What a program printed, or None where it is not there, fails or takes more than `seconds`."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; on macOS the brand string."""
    content = text(PROC / "cpuinfo")
    if content is None:
        brand = output(["sysctl", "-n", "machdep.cpu.brand_string"])
        return {"model name": brand} if brand else {}
    pairs = (line.partition(":") for line in content.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}


def cpu_folders() -> list[Path]:
    """The kernel's folder of each processor that this process may use."""
    base = SYS / "devices/system/cpu"
    return [base / f"cpu{cpu}" for cpu in affinity() if (base / f"cpu{cpu}").is_dir()]


def affinity() -> list[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def frequency_mhz() -> int | None:
    """Mean clock of the usable processors now; where only /proc/cpuinfo tells, that of the first.

    On a virtual machine the kernel repeats the nominal clock.
    """
    clocks = [number(folder / "cpufreq/scaling_cur_freq") for folder in cpu_folders()]
    known = [clock for clock in clocks if clock]
    if known:
        return round(sum(known) / len(known) / 1000)
    stated = cpuinfo().get("cpu MHz", "")
    try:
        return round(float(stated))
    except ValueError:
        return None


def temperature_c() -> float | None:
    """The hottest thermal zone or processor sensor, degrees Celsius."""
    zones = list((SYS / "class/thermal").glob("thermal_zone*/temp"))
    for sensor in (SYS / "class/hwmon").glob("hwmon*"):
        if text(sensor / "name") in ("coretemp", "k10temp", "zenpower", "cpu_thermal"):
            zones += sensor.glob("temp*_input")
    known = [value for zone in zones if (value := number(zone)) is not None and 0 < value < 150_000]
    return max(known) / 1000 if known else None


def cpu_seconds(wanted: Collection[str]) -> tuple[float, float] | None:
    """(busy, stolen) seconds since boot of the lines of /proc/stat named in `wanted`, together:
    `cpu` is that of all processors, `cpu0` that of the first. None when there is none of them.
    """
    busy = stolen = 0
    seen = False
    for line in (text(PROC / "stat") or "").splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu"):
            break
        if name in wanted and len(fields) >= 8 and all(field.isdigit() for field in fields[:8]):
            user, nice, system, _idle, _wait, irq, soft, steal = map(int, fields[:8])
            busy += user + nice + system + irq + soft
            stolen += steal
            seen = True
    hertz = os.sysconf("SC_CLK_TCK")
    return (busy / hertz, stolen / hertz) if seen else None


def meminfo() -> dict[str, int]:
    """/proc/meminfo: bytes where it says kB, else counts."""
    sizes = {}
    for line in (text(PROC / "meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        amount = rest.split()
        if amount and amount[0].isdigit():
            sizes[name] = int(amount[0]) * (1024 if amount[-1] == "kB" else 1)
    return sizes


def cgroup(name: str, controller: str, old_name: str = "") -> list[Path]:
    """The files called `name` of this process's cgroup and those above it, innermost first; under
    version 1 those called `old_name` of the hierarchy `controller`.
    """
    base = SYS / "fs/cgroup"
    if (base / "cgroup.controllers").exists() or not old_name:
        return [folder / name for folder in _folders(base, _cgroup_path(""))]
    top = base / controller
    return [folder / old_name for folder in _folders(top, _cgroup_path(controller))]


def _folders(base: Path, path: str) -> list[Path]:
    """`base`/a/b, `base`/a and `base` for the path /a/b."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return [base.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _cgroup_path(controller: str) -> str:
    for line in (text(PROC / "self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") if controller else controllers == "":
            return path
    return "/"


def memory_limit() -> int | None:
    """Bytes that the tightest container around this process allows."""
    files = cgroup("memory.max", "memory", "memory.limit_in_bytes")
    limits = [value for file in files if (value := number(file)) is not None and value < NO_LIMIT]
    return min(limits) if limits else None


def memory_used() -> int | None:
    """Bytes charged to this container that cannot be given back: the page cache it holds does not
    count.
    """
    used = next(
        (
            value
            for file in cgroup("memory.current", "memory", "memory.usage_in_bytes")
            if (value := number(file)) is not None
        ),
        None,
    )
    if used is None:
        return None
    stat = next((s for f in cgroup("memory.stat", "memory", "memory.stat") if (s := text(f))), "")
    cache = [
        int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")
    ]
    return used - sum(cache)


def cpu_quota() -> float | None:
    """Cores' worth of time that the tightest container around this process gets."""
    quotas = []
    for file in cgroup("cpu.max", "cpu"):
        words = (text(file) or "").split()
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    for file in cgroup("cpu.max", "cpu", "cpu.cfs_quota_us"):
        quota, period = number(file), number(file.with_name("cpu.cfs_period_us"))
        if file.name == "cpu.cfs_quota_us" and quota and period:
            quotas.append(quota / period)
    return round(min(quotas), 3) if quotas else None


def throttled_times() -> int | None:
    """How often the container's quota or the heat of a core held the processor back, since boot."""
    counts = []
    for file in cgroup("cpu.stat", "cpu", "cpu.stat"):
        for line in (text(file) or "").splitlines():
            if line.startswith("nr_throttled ") and line.split()[1].isdigit():
                counts.append(int(line.split()[1]))
    for folder in cpu_folders():
        count = number(folder / "thermal_throttle/core_throttle_count")
        if count is not None:
            counts.append(count)
    return sum(counts) if counts else None


@functools.lru_cache(maxsize=1)
def caches() -> dict[str, int]:
    """Bytes of the first processor's data caches, by level: `{"L1d": 49152, "L2": ..., "L3": ...}`.

    A cache that several cores share is counted once.
    """
    sizes = {}
    for folder in sorted((SYS / "devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (text(folder / name) or "" for name in ("type", "level", "size"))
        units = {"K": 1 << 10, "M": 1 << 20}
        if kind in ("Data", "Unified") and size[:-1].isdigit() and size[-1:] in units:
            name = f"L{level}" + ("d" if kind == "Data" and level == "1" else "")
            sizes[name] = int(size[:-1]) * units[size[-1]]
    return sizes
