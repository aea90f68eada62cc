"""The store held against the journals beside it: what it lacks is read in, what a journal lost is
named.

Owns the comparison; its sentences are in naming.py, making a spoilt store again is in recovery.py.
A journal whose size and time are those of its mark is not read again. The marks are kept twice: in
the store, with what was read, and in a note beside the journals, with a list of all studies, so
that a journal that was cut or removed is missed even when the store is lost too.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from core import disk
from core.errors import StoreError
from core.journal.events import Event
from core.journal.journal import JournalReading, Mark, examine
from store.health import naming
from store.health.losses import HELD, LOST, Losses
from store.interface import Store
from store.rows import rows_of

REPORTS = "reports.jsonl"
NOTE = "marks.json"
STUDIES = "studies.txt"
# The size of a mark whose journal was found to be gone, so that this is said once.
GONE = -2
Believe = Callable[[Path, Iterable[Event], str], list[Event]]


@dataclass(frozen=True)
class Findings:
    """How many events were new to the store, and a sentence for all that is damaged or lost."""

    new: int = 0
    notices: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.new + other.new, self.notices + other.notices)


def of_study(path: Path, events: Iterable[Event], study_id: str) -> list[Event]:
    """What is believed unless somebody knows better: events that speak of the folder's study."""
    return [event for event in events if study_id in ("", event.study_id) and _can_be_kept(event)]


def check_all(
    store: Store, folder: Path, believe: Believe = of_study, every: bool = False
) -> Findings:
    """Take in all journals of a studies folder; `every` reads also those that did not change."""
    check = _Check(store, folder, believe, every)
    here = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    findings = Findings()
    for study_id in sorted(here | {""}):
        findings += check.study(study_id)
    return findings + check.gone(here | {""})


def take_in(store: Store, folder: Path, study_id: str, believe: Believe = of_study) -> Findings:
    """Take in the journals of one study that have changed since they were last read."""
    return _Check(store, folder, believe, False).study(study_id)


class _Check:
    """One look at the journals; the study "" stands for the journal of the reports."""

    def __init__(self, store: Store, folder: Path, believe: Believe, every: bool) -> None:
        self._store = store
        self._folder = folder
        self._believe = believe
        self._every = every
        self._losses = Losses(folder)
        self._marks: dict[str, dict[str, Mark]] = {}
        for (study_id, file), mark in store.marks().items():
            self._marks.setdefault(study_id, {})[file] = mark

    def study(self, study_id: str) -> Findings:
        """Take in what changed in one study, and name what is wrong with it."""
        place = self._folder / study_id
        kept = self._marks.get(study_id, {})
        paths = {path.name: path for path in sorted(place.glob("*.jsonl")) if path.is_file()}
        readings, notices = self._read(study_id, paths, kept)
        gone = [mark for file, mark in kept.items() if file not in paths and mark.size != GONE]
        noted = {} if not readings and not gone and kept else _noted(place, study_id)
        unknown = [file for file in noted if file not in paths and file not in kept]
        if not readings and not gone and not unknown:
            return Findings(0, tuple(notices))
        events: dict[str, Event] = {}
        refused: dict[str, list[str]] = {}
        for file, reading in readings.items():
            spoken = reading.checked.events
            taken = {event.id: event for event in self._believe(reading.path, spoken, study_id)}
            refused[file] = [event.id for event in spoken if event.id not in taken]
            events |= taken
        # What is lost is named before the marks say that it was: a kill between may name it twice.
        new = self._store.ingest(sorted(events.values(), key=lambda event: event.id))
        for file, reading in readings.items():
            notices += naming.in_a_journal(
                self._store, self._losses, reading, kept.get(file), noted.get(file), refused[file]
            )
        missing = [(mark.file, HELD) for mark in gone] + [(file, LOST) for file in unknown]
        for file, means in missing:
            text = f"{naming.journal_name(study_id, file)} is missing"
            notices += self._losses.tell(text, means)
        marks = [reading.mark for reading in readings.values()] + [
            replace(mark, size=GONE) for mark in gone
        ]
        self._store.ingest((), marks)
        _note(place, paths, {**kept, **{mark.file: mark for mark in marks}})
        if not kept:
            _list(self._folder, study_id)
        if study_id and (notices or self._every or not kept):
            notices += naming.in_a_study(self._store, self._losses, study_id, list(paths.values()))
        return Findings(new, tuple(notices))

    def gone(self, here: set[str]) -> Findings:
        """Name the studies whose folders are not there any more."""
        lost = [
            mark
            for study_id in sorted(set(self._marks) - here)
            for mark in self._marks[study_id].values()
            if mark.size != GONE
        ]
        told = naming.gone_studies(self._losses, sorted({mark.study_id for mark in lost}))
        self._store.ingest((), [replace(mark, size=GONE) for mark in lost])
        for study_id in sorted(set(_listed(self._folder)) - here - set(self._marks)):
            text = f"study {study_id} is missing with all its journals"
            told += self._losses.tell(text, LOST)
        return Findings(0, tuple(told))

    def _read(
        self, study_id: str, paths: dict[str, Path], kept: dict[str, Mark]
    ) -> tuple[dict[str, JournalReading], list[str]]:
        """The journals that changed, by their file names, and what cannot be read."""
        readings: dict[str, JournalReading] = {}
        notices: list[str] = []
        for file, path in paths.items():
            try:
                if self._every or not _unchanged(path, kept.get(file)):
                    readings[file] = examine(path, study_id)
            except OSError as error:
                text = f"{naming.journal_name(study_id, file)} cannot be read"
                notices += self._losses.tell(text, error.strerror or str(error))
        return readings, notices


def _unchanged(path: Path, mark: Mark | None) -> bool:
    if mark is None:
        return False
    status = path.stat()
    return (mark.size, mark.modified_ns) == (status.st_size, status.st_mtime_ns)


def _noted(place: Path, study_id: str) -> dict[str, Mark]:
    """What the note beside the journals says; nothing when it is missing or damaged."""
    try:
        data = json.loads((place / NOTE).read_bytes())
        return {
            str(file): Mark(study_id, str(file), int(number), str(digest))
            for file, (number, digest) in data.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _note(place: Path, paths: Iterable[str], marks: dict[str, Mark]) -> None:
    """Write the note. It only helps to name losses: a disk that takes it not keeps nothing shut."""
    told = {file: (marks[file].number, marks[file].hash) for file in paths if file in marks}
    with contextlib.suppress(OSError):
        disk.replace(place / NOTE, json.dumps(told).encode())


def note_now(path: Path, mark: Mark) -> None:
    """Note at once how far the journal at `path` goes, beside it: one that is written by few lines
    in a long time, each a report, must not wait for the next check."""
    known = {**_noted(path.parent, mark.study_id), path.name: mark}
    _note(path.parent, known, known)


def _list(folder: Path, study_id: str) -> None:
    """Remember that there is this study; as `_note`."""
    if study_id in _listed(folder):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder / STUDIES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            disk.write_all(handle, f"{study_id}\n".encode())
        finally:
            os.close(handle)


def _listed(folder: Path) -> list[str]:
    try:
        return (folder / STUDIES).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except OSError:
        return []


def _can_be_kept(event: Event) -> bool:
    try:
        rows_of([event])
    except StoreError:
        return False
    return True
