"""NVIDIA GPUs as the driver's own tool tells of them: what they are, and how they are now.

Runs nvidia-smi; imports no torch. Other makers' GPUs are not known here.
"""

from __future__ import annotations

import shutil
from typing import Any

from core.machine import readers

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
THROTTLE = "clocks_throttle_reasons.active"
# Bits of the throttle reasons that are no trouble: idle, and clocks that an application set.
HARMLESS = 0x1 | 0x2


def gpus() -> list[dict[str, Any]]:
    """Each GPU with its name and the FIXED numbers; by name alone where only /proc shows them.

    A driver too old for a number gives the others.
    """
    rows = _query(["name", *(query for _, query, _ in FIXED)]) or _query(["name", "memory.total"])
    cards = [{"name": row[0], **_numbers(FIXED, row[1:])} for row in rows if row[0] and _sound(row)]
    return cards or _by_driver()


def gpu_now() -> list[dict[str, Any]]:
    """Clocks, temperature and power of each GPU now, and `throttled` when the driver slows it."""
    rows = _query([*(query for _, query, _ in NOW), THROTTLE])
    readings = []
    for row in rows:
        reasons = row[-1]
        slowed = reasons.startswith("0x") and int(reasons, 16) & ~HARMLESS != 0
        readings.append({**_numbers(NOW, row[:-1]), "throttled": slowed})
    return readings


def driver() -> str | None:
    """Version of the NVIDIA kernel driver."""
    text = readers.text(readers.PROC / "driver/nvidia/version") or ""
    words = text.split("Kernel Module")[-1].split() if "Kernel Module" in text else []
    return next((word for word in words if word[0].isdigit()), None)


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


def _by_driver() -> list[dict[str, Any]]:
    folder = readers.PROC / "driver/nvidia/gpus"
    if not folder.is_dir():
        return []
    texts = [readers.text(path / "information") or "" for path in sorted(folder.iterdir())]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("Model:")]
    return [{"name": line.partition(":")[2].strip()} for line in lines]
