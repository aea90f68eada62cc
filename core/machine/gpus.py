"""NVIDIA GPUs: what they are, and how they are now.

Asks the driver's own tool, nvidia-smi; where it is missing the driver's library; where that is
missing too, torch, in a process of its own unless it is loaded here already. Other makers' GPUs are
not known here.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from core.machine import nvml, readers

# name in our facts, name in nvidia-smi's query, factor; those that do not change.
FIXED = (
    ("memory_bytes", "memory.total", 1024 * 1024),
    ("power_limit_w", "power.limit", 1),
    ("clock_max_mhz", "clocks.max.sm", 1),
    ("memory_clock_max_mhz", "clocks.max.mem", 1),
)
NOW = (
    ("clock_mhz", "clocks.sm", 1),
    ("memory_clock_mhz", "clocks.mem", 1),
    ("temperature_c", "temperature.gpu", 1),
    ("power_w", "power.draw", 1),
)
# The second is what newer drivers call it.
THROTTLE = ("clocks_throttle_reasons.active", "clocks_event_reasons.active")
# Bits of the throttle reasons that are no trouble: idle, and clocks that an application set.
HARMLESS = 0x1 | 0x2
# What torch says of the GPUs that it can use, one JSON line; importing it may take a cold disk.
_ASK_TORCH = """
import json, torch
cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
print(json.dumps([[card.name, card.total_memory] for card in cards]))
"""
_TORCH_S = 60.0
# The driver's devices; the last is Windows' own under its Linux.
NODES = ("nvidiactl", "nvidia0", "nvidia-uvm", "dxg")


def gpus() -> list[dict[str, Any]]:
    """Each GPU with its name and the FIXED numbers; with less of them, down to the name alone,
    where less can be read.
    """
    rows = _query(["name", *(query for _, query, _ in FIXED)]) or _query(["name", "memory.total"])
    cards = [{"name": row[0], **_numbers(FIXED, row[1:])} for row in rows if row[0] and _sound(row)]
    return cards or nvml.cards() or _by_torch() or _by_driver()


def gpu_now() -> list[dict[str, Any]]:
    """Clocks, temperature and power of each GPU now, and `throttled` when the driver slows it."""
    # The library first: it starts no process, and a trial asks twice.
    readings = [reading(numbers, reasons) for numbers, reasons in nvml.now()]
    if readings:
        return readings
    queries = [query for _, query, _ in NOW]
    rows = _query([*queries, THROTTLE[0]]) or _query([*queries, THROTTLE[1]])
    for row in rows:
        reasons = int(row[-1], 16) if row[-1].startswith("0x") else 0
        readings.append(reading(_numbers(NOW, row[:-1]), reasons))
    return readings


def reading(numbers: dict[str, Any], reasons: int) -> dict[str, Any]:
    """The NOW numbers of a GPU, and whether a reason of these bits slows it."""
    return {**numbers, "throttled": reasons & ~HARMLESS != 0}


def driver() -> str | None:
    """Version of the NVIDIA kernel driver."""
    text = readers.text(readers.PROC / "driver/nvidia/version") or ""
    words = text.split("Kernel Module")[-1].split() if "Kernel Module" in text else []
    version = next((word for word in words if word[0].isdigit()), None)
    if version is None:
        rows = _query(["driver_version"])
        version = rows[0][0] if rows else nvml.driver()
    return version


def _query(fields: list[str]) -> list[list[str]]:
    """One list of texts a GPU; lines with another number of fields are dropped."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    lines = (readers.output(command) or "").splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [row for row in rows if len(row) == len(fields)]


def _numbers(fields: tuple[tuple[str, str, int], ...], cells: list[str]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for (name, _, factor), cell in zip(fields, cells, strict=False):
        try:
            value = float(cell)
        except ValueError:
            continue  # "[N/A]": this GPU does not tell
        numbers[name] = int(value * factor) if value == int(value) else value * factor
    return numbers


def _sound(row: list[str]) -> bool:
    return row[1].isdigit()


def _by_torch() -> list[dict[str, Any]]:
    """Names and bytes from torch, asked only where the driver's devices are there."""
    if not any((readers.DEV / name).exists() for name in NODES):
        return []
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        listed = [(card.name, card.total_memory) for card in cards]
    else:
        text = readers.output([sys.executable, "-c", _ASK_TORCH], _TORCH_S) or "[]"
        listed = json.loads(text.splitlines()[-1])
    return [{"name": str(name), "memory_bytes": int(size)} for name, size in listed]


def _by_driver() -> list[dict[str, Any]]:
    folder = readers.PROC / "driver/nvidia/gpus"
    if not folder.is_dir():
        return []
    texts = [readers.text(path / "information") or "" for path in sorted(folder.iterdir())]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("Model:")]
    return [{"name": line.partition(":")[2].strip()} for line in lines]
