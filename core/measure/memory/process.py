"""Resident memory of this process, read from the kernel's own books (Linux)."""

from __future__ import annotations

import gc
from pathlib import Path

from core.engine.allocator import give_back

_STATUS = Path("/proc/self/status")


def _field(name: str) -> int | None:
    try:
        for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def resident_bytes() -> int | None:
    """Resident set size now; None where the kernel does not tell."""
    return _field("VmRSS")


def peak_resident_bytes() -> int | None:
    """Highest resident set size since the start or the last reset_peak()."""
    return _field("VmHWM")


def reset_peak() -> bool:
    """Give freed memory back and start the high-water mark anew; False where the kernel refuses."""
    gc.collect()
    give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
