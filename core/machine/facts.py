"""What is known of an environment's facts: which of them change from run to run, what each is
called, and how its value reads. core.machine.environment takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Facts that change from run to run without making two runs unlike; none of them is in an id.
VOLATILE = frozenset(
    {
        "id", "at", "taken_at", "pid", "load", "load_1m", "available_bytes", "free_bytes",
        "frequency_mhz", "temperature_c", "torch_threads",
    }
)  # fmt: skip
LABELS = {
    "cpu": "CPU",
    "architecture": "architecture",
    "flags": "CPU flags",
    "cores": "usable cores",
    "cores_online": "cores",
    "affinity": "cores that the process may use",
    "smt": "SMT",
    "caches": "caches",
    "frequency_min_mhz": "lowest clock, MHz",
    "frequency_max_mhz": "highest clock, MHz",
    "governor": "governor",
    "scaling_driver": "clock driver",
    "boost": "boost",
    "cpu_quota": "CPU quota of the container, cores",
    "numa_nodes": "NUMA nodes",
    "huge_pages": "transparent huge pages",
    "huge_pages_reserved": "reserved huge pages",
    "memory_bytes": "memory",
    "memory_speed": "memory modules",
    "gpus": "GPU",
    "driver": "GPU driver",
    "os": "operating system",
    "distribution": "distribution",
    "kernel": "kernel",
    "container": "container",
    "virtual": "virtual machine",
    "python": "Python",
    "versions": "version of",
    "threads": "thread setting",
    "compiler": "compiler",
    "kernels": "build of kernel",
}


def text_of(value: Any) -> str:
    """A fact's value in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
    return "unknown" if value is None else str(value)
