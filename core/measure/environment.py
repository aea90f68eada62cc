"""The environment that numbers were taken in, as facts with a short id. Reads files and versions;
imports no torch.

Facts that do not change from run to run (CPU, cores, memory, GPU, kernel, versions) make the id;
load, free memory and the current frequency are recorded but do not.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm",
    "bf16", "sve", "sve2",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "triton", "safetensors", "tokenizers", "numpy")
VOLATILE = ("load_1m", "available_bytes", "frequency_mhz")
_PROC = Path("/proc")
_SYS = Path("/sys")


def environment() -> tuple[str, dict[str, Any]]:
    """(id, facts) of this machine now: the id is 12 hex digits over the stable facts, the same
    until one changes.

    Facts that cannot be read are left out. Bytes in `memory_bytes` and `available_bytes`, MHz in
    `frequency_mhz`.
    """
    facts = {**_stable(), **_volatile()}
    return identity(facts), facts


def identity(facts: dict[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of the stable facts."""
    stable = {key: value for key, value in facts.items() if key not in VOLATILE}
    canonical = json.dumps(stable, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def usable_gpu(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The first NVIDIA GPU (name, memory_bytes) that the installed torch could drive, or None.

    A torch wheel whose version ends in `+cpu` drives none.
    """
    gpus: list[dict[str, Any]] = facts.get("gpus", [])
    version = facts.get("versions", {}).get("torch", "")
    known = [gpu for gpu in gpus if gpu.get("memory_bytes")]
    return known[0] if known and version and not version.endswith("+cpu") else None


@functools.lru_cache(maxsize=1)
def _stable() -> dict[str, Any]:
    cpu = _cpu()
    facts: dict[str, Any] = {
        "cpu": cpu.get("model name") or cpu.get("Model") or platform.machine(),
        "architecture": platform.machine(),
        "flags": _flags(cpu),
        "cores": len(_affinity()),
        "affinity": _affinity(),
        "cores_online": os.cpu_count() or 1,
        "governor": _text(_SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": _memory_total(),
        "gpus": _gpus(),
        "driver": _driver(),
        "os": platform.system(),
        "kernel": platform.release(),
        "container": _container(),
        "python": platform.python_version(),
        "versions": _versions(),
    }
    return {key: value for key, value in facts.items() if value not in (None, [], {})}


def _volatile() -> dict[str, Any]:
    facts: dict[str, Any] = {"available_bytes": available_bytes()}
    if hasattr(os, "getloadavg"):
        facts["load_1m"] = round(os.getloadavg()[0], 2)
    frequency = _cpu().get("cpu MHz")
    if frequency is not None:
        facts["frequency_mhz"] = round(float(frequency))
    return facts


def available_bytes() -> int:
    """Memory that a new process could fill: the kernel's estimate, or less where a container limits
    it.
    """
    available = _meminfo().get("MemAvailable")
    if available is None:
        available = _memory_total()
    limit, used = _cgroup_limit(), _cgroup_used()
    if limit is not None and used is not None:
        return max(0, min(available, limit - used))
    return available


def _memory_total() -> int:
    total = _meminfo().get("MemTotal")
    if total is None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _cgroup_limit()
    return total if limit is None else min(total, limit)


def _meminfo() -> dict[str, int]:
    text = _text(_PROC / "meminfo") or ""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        amount = rest.split()
        if amount and amount[0].isdigit():
            found[name] = int(amount[0]) * 1024
    return found


def _cgroup_limit() -> int | None:
    return _number(_SYS / "fs/cgroup/memory.max")


def _cgroup_used() -> int | None:
    """Bytes charged to this container that cannot be given back: the page cache it holds does not
    count.
    """
    used = _number(_SYS / "fs/cgroup/memory.current")
    if used is None:
        return None
    text = _text(_SYS / "fs/cgroup/memory.stat") or ""
    cache = [
        int(line.split()[1]) for line in text.splitlines() if line.startswith("inactive_file ")
    ]
    return used - sum(cache)


def _cpu() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; on macOS the brand string."""
    text = _text(_PROC / "cpuinfo")
    if text is None:
        brand = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
        return {"model name": brand} if brand else {}
    lines = text.split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}


def _flags(cpu: dict[str, str]) -> list[str]:
    present = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return [flag for flag in FLAGS if flag in present]


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> list[dict[str, Any]]:
    """NVIDIA GPUs by the driver's own tool; by name alone where only /proc shows them."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        rows = [line.rpartition(",") for line in (_output(query) or "").splitlines()]
        found = [
            {"name": name.strip(), "memory_bytes": int(size) * 1024 * 1024}
            for name, _, size in rows
            if name.strip() and size.strip().isdigit()
        ]
        if found:
            return found
    folder = _PROC / "driver/nvidia/gpus"
    if not folder.is_dir():
        return []
    texts = [_text(path / "information") or "" for path in sorted(folder.iterdir())]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("Model:")]
    return [{"name": line.partition(":")[2].strip()} for line in lines]


def _driver() -> str | None:
    """Version of the NVIDIA kernel driver."""
    text = _text(_PROC / "driver/nvidia/version") or ""
    words = text.split("Kernel Module")[-1].split() if "Kernel Module" in text else []
    return next((word for word in words if word[0].isdigit()), None)


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return os.environ.get("container")  # noqa: SIM112


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _output(command: list[str]) -> str | None:
    """What a program printed, or None; it gets five seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
