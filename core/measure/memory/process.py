"""Resident memory of this process, read from the kernel's own books (Linux), and an allocator that
gives freed memory back at once, so that the books show what is held and not what was.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

_STATUS = Path("/proc/self/status")

# mallopt's names (malloc.h) and what glibc itself ends at: it raises both thresholds as it sees
# larger blocks freed, up to these, so that a round that repeats takes its memory from the heap.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LARGEST_MMAP_THRESHOLD = 32 << 20
# Blocks from here on are mapped apart and leave with free(); smaller ones are not worth a call.
_APART_BYTES = 64 << 10


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


def give_back() -> None:
    """Let freed memory leave the process, where malloc can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> bool:
    """Give freed memory back and start the high-water mark anew; False where the kernel refuses."""
    gc.collect()
    give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def freed_at_once() -> Iterator[bool]:
    """Within it freed blocks leave the process at once; yields False where malloc cannot do that.

    A block that fits a gap which the heap already has still goes there, and stays when freed.
    Slower: never around what is timed. Afterwards blocks under 32 MiB stay in the heap when freed,
    as glibc ends up doing by itself.
    """
    yield _mallopt(_APART_BYTES, 0)
    _mallopt(_LARGEST_MMAP_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)


def _mallopt(mmap_threshold: int, trim_threshold: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_MMAP_THRESHOLD, mmap_threshold),
        (_TRIM_THRESHOLD, trim_threshold),
        (_MMAP_MAX, 1 << 16),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)
