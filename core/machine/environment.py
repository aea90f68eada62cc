"""The environment that numbers were taken in, as facts with a short id. Reads files and versions;
imports no torch.

Facts that do not change from run to run (CPU, cores, clocks and governor, memory, GPU, kernel,
container, versions, thread settings, builds of our kernels) make the id; those that do
(core.machine.facts.VOLATILE: load, free memory, the clock now) are recorded but are not in
it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from core.machine import gpus, readers
from core.machine.facts import VOLATILE
from kernels.build_ids import build_ids, compiler_version

FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm",
    "bf16", "sve", "sve2",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "triton", "safetensors", "tokenizers", "numpy")
# Variables that change how many threads compute, where they run, or which kernel is taken.
THREADS = (
    "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY",
    "MKL_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME", "OPENBLAS_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MALLOC_ARENA_MAX",
    "CUDA_VISIBLE_DEVICES", "TRIMTAB_KERNEL",
)  # fmt: skip
_CPU = "devices/system/cpu"


def environment() -> tuple[str, dict[str, Any]]:
    """(id, facts) of this machine now: the id is 12 hex digits over the stable facts, the same
    until one changes.

    Facts that cannot be read are left out. Bytes in `memory_bytes`, `available_bytes` and `caches`,
    MHz in `frequency_*_mhz`, cores in `cpu_quota`.
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

    A torch wheel whose version ends in `+cpu` drives none, and CUDA_VISIBLE_DEVICES may hide some.
    """
    listed = _visible(facts.get("gpus", []), facts.get("threads", {}).get("CUDA_VISIBLE_DEVICES"))
    version = facts.get("versions", {}).get("torch", "")
    known = [gpu for gpu in listed if gpu.get("memory_bytes")]
    return known[0] if known and version and not version.endswith("+cpu") else None


def _visible(listed: list[dict[str, Any]], said: str | None) -> list[dict[str, Any]]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by index, the first that it names first; all where
    it names them in another way.
    """
    if said is None:
        return listed
    names = [name.strip() for name in said.split(",") if name.strip()]
    if not names or names[0].startswith("-"):
        return []
    if not all(name.isdigit() for name in names):
        return listed
    return [listed[int(name)] for name in names if int(name) < len(listed)]


def available_bytes() -> int:
    """Memory that a new process could fill: the kernel's estimate, or less where a container limits
    it.
    """
    available = readers.meminfo().get("MemAvailable")
    if available is None:
        available = _memory_total()
    limit, used = readers.memory_limit(), readers.memory_used()
    if limit is not None and used is not None:
        return max(0, min(available, limit - used))
    return available


@functools.lru_cache(maxsize=1)
def _stable() -> dict[str, Any]:
    facts: dict[str, Any] = {
        **_cpu_facts(),
        "memory_bytes": _memory_total(),
        "memory_speed": _memory_speed(),
        "gpus": gpus.gpus(),
        "driver": gpus.driver(),
        "os": platform.system(),
        "distribution": _distribution(),
        "kernel": platform.release(),
        "container": _container(),
        "python": platform.python_version(),
        "versions": _versions(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
    }
    facts.update(_builds(triton=bool(facts["gpus"])))
    return {key: value for key, value in facts.items() if value not in (None, "", [], {})}


def _cpu_facts() -> dict[str, Any]:
    cpu = readers.cpuinfo()
    first = readers.SYS / _CPU / "cpu0"
    lowest, highest = (
        readers.number(first / f"cpufreq/cpuinfo_{name}_freq") for name in ("min", "max")
    )
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    pages = (readers.text(readers.SYS / "kernel/mm/transparent_hugepage/enabled") or "").split("[")
    return {
        "cpu": cpu.get("model name") or cpu.get("Model") or platform.machine(),
        "architecture": platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(readers.affinity()),
        "affinity": readers.affinity(),
        "cores_online": os.cpu_count() or 1,
        "cpu_quota": readers.cpu_quota(),
        "smt": _smt(),
        "caches": readers.caches(),
        "frequency_min_mhz": None if lowest is None else round(lowest / 1000),
        "frequency_max_mhz": None if highest is None else round(highest / 1000),
        "governor": readers.text(first / "cpufreq/scaling_governor"),
        "scaling_driver": readers.text(first / "cpufreq/scaling_driver"),
        "boost": _boost(),
        "numa_nodes": len(list((readers.SYS / "devices/system/node").glob("node[0-9]*"))) or None,
        "huge_pages": pages[-1].partition("]")[0] if len(pages) == 2 else None,
        "huge_pages_reserved": readers.meminfo().get("HugePages_Total") or None,
        "virtual": _virtual(flags),
    }


def _volatile() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "available_bytes": available_bytes(),
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "frequency_mhz": readers.frequency_mhz(),
        "temperature_c": readers.temperature_c(),
        # Asked only where torch is there already: this module must not import it.
        "torch_threads": sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _memory_total() -> int:
    total = readers.meminfo().get("MemTotal")
    if total is None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = readers.memory_limit()
    return total if limit is None else min(total, limit)


def _memory_speed() -> str | None:
    """`DDR5 4800 MT/s x 8`, which only root may read."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    kinds: dict[str, int] = {}
    kind = ""
    for line in (readers.output(["dmidecode", "-t", "17"]) or "").splitlines():
        name, _, value = line.strip().partition(": ")
        if name == "Type":
            kind = value
        if name == "Configured Memory Speed" and value[:1].isdigit():
            kinds[f"{kind} {value}".strip()] = kinds.get(f"{kind} {value}".strip(), 0) + 1
    return ", ".join(f"{name} x {count}" for name, count in kinds.items()) or None


def _smt() -> str | None:
    return {"1": "on", "0": "off"}.get(readers.text(readers.SYS / _CPU / "smt/active") or "")


def _boost() -> str | None:
    """Whether the processor may exceed its nominal clock."""
    off = readers.text(readers.SYS / _CPU / "intel_pstate/no_turbo")
    if off in ("0", "1"):
        return "on" if off == "0" else "off"
    return {"1": "on", "0": "off"}.get(readers.text(readers.SYS / _CPU / "cpufreq/boost") or "")


def _virtual(flags: set[str]) -> str | None:
    """The hypervisor's name where the firmware tells it, else `yes`; None on bare metal."""
    name = readers.text(readers.SYS / "hypervisor/type")
    vendor = readers.text(readers.SYS / "class/dmi/id/sys_vendor")
    if "hypervisor" not in flags:
        return name
    return name or vendor or "yes"


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return platform.mac_ver()[0] or None


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return os.environ.get("container")  # noqa: SIM112


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _builds(triton: bool) -> dict[str, Any]:
    return {"compiler": compiler_version(), "kernels": build_ids(triton)}
