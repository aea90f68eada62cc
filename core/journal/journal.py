"""A journal: a file of events, one line each, on the disk before append returns. It outlives a
killed writer.

Owns the file; how its lines are chained and what their damage means is said in core.journal.chain,
what the events mean in core.journal.events.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core import disk
from core.errors import TrimtabError
from core.journal import chain
from core.journal.chain import Checked, Link
from core.journal.events import Event
from core.journal.lines import to_line

_TAIL_BYTES = 1 << 16


class JournalError(TrimtabError, OSError):
    """A journal cannot be written: the event is not kept."""


@dataclass(frozen=True)
class Mark:
    """How far a journal is: the number and hash of its last chained line, and the file's bytes and
    time, -1 when they were not looked at. A store keeps marks, so that it later knows what it read.
    """

    study_id: str
    file: str
    number: int
    hash: str
    size: int = -1
    modified_ns: int = -1

    @property
    def key(self) -> tuple[str, str]:
        """A journal is known by its study (empty for one beside all studies) and its file name."""
        return self.study_id, self.file


class Journal:
    """Appends events to one file. Any number of threads and processes may append."""

    def __init__(self, path: str | Path, study_id: str | None = None) -> None:
        """Open for appending; a line that a killed writer left half written is ended by the next
        append. `study_id` is the name of the folder unless given.
        """
        self.path = Path(path)
        self.study_id = self.path.parent.name if study_id is None else study_id
        self._name = _name(self.path, self.study_id)
        self._lock = threading.Lock()
        self._size = -1
        self._end = chain.root(self._name)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists()
            self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if fresh:
                disk.sync_folder(self.path.parent)
        except OSError as error:
            raise _failed(self.path, error) from None

    def append(self, event: Event) -> str:
        """Returns the line, without its end, once it is on the disk; JournalError when it cannot
        be.
        """
        return self._write([to_line(event)])[0]

    def extend(self, events: Iterable[Event]) -> None:
        """As append, for several events at once."""
        self._write([to_line(event) for event in events])

    def mark(self) -> Mark:
        """How far this journal is, as far as this object wrote it."""
        with self._lock:
            status = os.fstat(self._handle)
            same = status.st_size == self._size
            size, time = (status.st_size, status.st_mtime_ns) if same else (-1, -1)
            digest = self._end.hash if self._end.number else ""
            return Mark(self.study_id, self.path.name, self._end.number, digest, size, time)

    def close(self) -> None:
        """Nothing can be appended afterwards."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, texts: list[str]) -> list[str]:
        with self._lock:
            try:
                with self._alone():
                    lines, last = [], self._end
                    for text in texts:
                        line, last = chain.seal(self._name, last, text)
                        lines.append(line)
                    data = "".join(line + "\n" for line in lines).encode("ascii")
                    if not self._ends_a_line():
                        data = b"\n" + data
                    size, self._size = self._size, -1
                    disk.write_all(self._handle, data)
                    self._size, self._end = size + len(data), last
                    return lines
            except OSError as error:
                raise _failed(self.path, error) from None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other writer meanwhile; what others wrote before, or what failed, is looked up."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._handle).st_size
            if size != self._size:
                self._end = self._find_end(size)
                self._size = size
            yield
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _find_end(self, size: int) -> Link:
        tail = os.pread(self._handle, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        link = chain.proven(self._name, tail.rstrip(b"\n").rpartition(b"\n")[2])
        return link or chain.end(self._name, self.path.read_bytes())

    def _ends_a_line(self) -> bool:
        return self._size == 0 or os.pread(self._handle, 1, self._size - 1) == b"\n"


@dataclass(frozen=True)
class JournalReading:
    """A journal as it was read: what its lines say, and its mark."""

    path: Path
    checked: Checked
    mark: Mark


def examine(path: Path, study_id: str | None = None) -> JournalReading:
    """Read and check a whole journal; one that does not exist has no lines and the size -1.
    OSError when it cannot be read.
    """
    study_id = path.parent.name if study_id is None else study_id
    name = _name(path, study_id)
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(status.st_size)
    except FileNotFoundError:
        return JournalReading(path, chain.check(name, b""), Mark(study_id, path.name, 0, ""))
    checked = chain.check(name, data)
    last = checked.last if checked.hashes else Link(0, "")
    size, time = status.st_size, status.st_mtime_ns
    return JournalReading(
        path, checked, Mark(study_id, path.name, last.number, last.hash, size, time)
    )


def read(path: str | Path) -> tuple[list[Event], bool]:
    """All whole events of a journal, in order, and whether nothing was skipped.

    A line that was cut off or damaged is skipped and makes the second value False; `damage` names
    it, unless a killed writer left it half written at the end: that one was never acknowledged. A
    journal that does not exist yet has no events and is complete.
    """
    checked = examine(Path(path)).checked
    return list(checked.events), not checked.damage and not checked.torn


def damage(path: str | Path) -> tuple[str, ...]:
    """One sentence for everything in the journal that is damaged."""
    return tuple(f"{path}, {item.text}" for item in examine(Path(path)).checked.damage)


def _name(path: Path, study_id: str) -> str:
    return f"{study_id}/{path.name}"


def _failed(path: Path, error: OSError) -> JournalError:
    why = error.strerror or str(error)
    return JournalError(
        f"the journal {path} cannot be written ({why}), so nothing more was kept: "
        "free or repair its disk, then resume the study"
    )
