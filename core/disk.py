"""The calls that change a disk, in one place, so that a test can make the Nth of them fail.

Owns how a file is made durable; what is written is said by the callers.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class System:
    """The operating system; tests put a failing one in its place."""

    def write(self, handle: int, data: bytes) -> int:
        """See os.write: may write less than was given."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """See os.fsync."""
        os.fsync(handle)

    def rename(self, old: Path, new: Path) -> None:
        """See os.replace."""
        os.replace(old, new)


system = System()


def write_all(handle: int, data: bytes) -> None:
    """Write every byte and wait until the disk has them; OSError may leave a part behind."""
    while data:
        data = data[system.write(handle, data) :]
    system.sync(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        system.sync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Rename within a folder, durably."""
    system.rename(old, new)
    sync_folder(new.parent)


def replace(path: Path, data: bytes) -> None:
    """The file holds either what it held or all of `data`, whatever happens meanwhile."""
    part = path.with_name(path.name + ".part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(handle, data)
        finally:
            os.close(handle)
        rename(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
