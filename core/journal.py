"""A journal: a file of events, one line each, on the disk before append returns. It outlives a
killed writer.

Owns the file and its damage; what the events mean is said in core.events and kept by the store.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from core.errors import BadInput
from core.events import Event, from_line, to_line


class Journal:
    """Appends events to one file. Several threads may append; one process writes a journal at a
    time.
    """

    def __init__(self, path: str | Path) -> None:
        """Open for appending; a line that a killed writer left half written is ended by the next
        append.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        self._lock = threading.Lock()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        self._whole = fresh or _ends_a_line(self.path)
        if fresh:
            _sync_folder(self.path.parent)

    def append(self, event: Event) -> None:
        """Returns when the event is on the disk; OSError when it cannot be."""
        self._write(to_line(event).encode("ascii") + b"\n")

    def close(self) -> None:
        """Nothing can be appended afterwards."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        with self._lock:
            data = line if self._whole else b"\n" + line
            self._whole = False
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
            self._whole = True


def read(path: str | Path) -> tuple[list[Event], bool]:
    """All whole events of a journal, in order, and whether nothing was skipped.

    A line that was cut off or damaged is skipped and makes the second value False; `damage` names
    it. A journal that does not exist yet has no events and is complete.
    """
    events, damaged = _read(Path(path))
    return events, not damaged


def damage(path: str | Path) -> tuple[str, ...]:
    """One sentence for every line of the journal that cannot be read."""
    return tuple(_read(Path(path))[1])


def _read(path: Path) -> tuple[list[Event], list[str]]:
    events: list[Event] = []
    damaged: list[str] = []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return events, damaged
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            events.append(from_line(line.decode("utf-8")))
        except UnicodeDecodeError:
            damaged.append(f"{path}, line {number}: it is not text, the line is skipped")
        except BadInput as error:
            damaged.append(f"{path}, line {number}: {error}; the line is skipped")
    return events, damaged


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
