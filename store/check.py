"""The store held against the journals beside it: what it lacks is read in, what a journal lost is
named.

Owns the comparison and its sentences; not how a store that cannot be opened is made again
(recovery.py). A journal whose size and time are those of its mark is not read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import StoreError
from core.events import Event
from core.journal import Mark, Reading, examine
from core.study import ENDED
from store.interface import Store
from store.losses import HELD, LOST, Losses
from store.rows import rows_of

REPORTS = "reports.jsonl"
# The size of a mark whose journal was found to be gone, so that this is said once.
GONE = -2
# Sentences about one journal before the rest is counted.
MOST = 5
Believe = Callable[[Path, Iterable[Event], str], list[Event]]


@dataclass(frozen=True)
class Found:
    """How many events were new to the store, and a sentence for all that is damaged or lost."""

    new: int = 0
    notices: tuple[str, ...] = ()

    def __add__(self, other: Found) -> Found:
        return Found(self.new + other.new, self.notices + other.notices)


def of_study(path: Path, events: Iterable[Event], study_id: str) -> list[Event]:
    """What is believed unless somebody knows better: events that speak of the folder's study."""
    return [one for one in events if study_id in ("", one.study_id) and _can_be_kept(one)]


def check_all(
    store: Store, folder: Path, believe: Believe = of_study, every: bool = False
) -> Found:
    """Take in all journals of a studies folder; `every` reads also those that did not change."""
    marks = store.marks()
    losses = Losses(folder)
    here = {one.name for one in folder.iterdir() if one.is_dir()} if folder.is_dir() else set()
    found = Found()
    for study_id in sorted(here | {""}):
        found += _take_in(store, folder, study_id, believe, every, marks, losses)
    gone = sorted({study_id for study_id, _ in marks} - here - {""})
    return found + _gone_studies(store, marks, gone, losses)


def take_in(store: Store, folder: Path, study_id: str, believe: Believe = of_study) -> Found:
    """Take in the journals of one study that have changed since they were last read."""
    return _take_in(store, folder, study_id, believe, False, store.marks(), Losses(folder))


def _take_in(
    store: Store,
    folder: Path,
    study_id: str,
    believe: Believe,
    every: bool,
    marks: dict[tuple[str, str], Mark],
    losses: Losses,
) -> Found:
    place = folder / study_id if study_id else folder
    paths = sorted(path for path in place.glob("*.jsonl") if path.is_file())
    readings: list[Reading] = []
    events: dict[str, Event] = {}
    refused: dict[Path, list[Event]] = {}
    notices: list[str] = []
    for path in paths:
        try:
            if not every and _unchanged(path, marks.get((study_id, path.name))):
                continue
            reading = examine(path, study_id)
        except OSError as error:
            why = error.strerror or str(error)
            notices += losses.tell(f"journal {_name(study_id, path.name)} cannot be read", why)
            continue
        readings.append(reading)
        taken = believe(path, reading.checked.events, study_id)
        events |= {one.id: one for one in taken}
        refused[path] = [one for one in reading.checked.events if one.id not in events]
    missing = [
        mark
        for key, mark in marks.items()
        if key[0] == study_id and mark.size != GONE and key[1] not in {one.name for one in paths}
    ]
    new_marks = [one.mark for one in readings] + [replace(one, size=GONE) for one in missing]
    if not new_marks:
        return Found(0, tuple(notices))
    new = store.ingest(sorted(events.values(), key=lambda one: one.id))
    for reading in readings:
        mark = marks.get(reading.mark.key)
        notices += _name_losses(store, reading, mark, refused[reading.path], losses)
    for mark in missing:
        text = f"journal {_name(*mark.key)} is missing"
        notices += losses.tell(text, HELD)
    store.ingest((), new_marks)
    if study_id and (notices or every or not marks):
        notices += _name_gaps(store, study_id, paths, losses)
    return Found(new, tuple(notices))


def _unchanged(path: Path, mark: Mark | None) -> bool:
    status = path.stat()
    return mark is not None and (mark.size, mark.modified_ns) == (
        status.st_size,
        status.st_mtime_ns,
    )


def _name_losses(
    store: Store, reading: Reading, mark: Mark | None, refused: Sequence[Event], losses: Losses
) -> list[str]:
    """Sentences for what is wrong in one journal, a few of them when there are many."""
    name = f"journal {_name(*reading.mark.key)}"
    read_before = mark.number if mark else 0
    known = store.known([one.event_id for one in reading.checked.damage if one.event_id])
    told: list[str] = []
    for one in reading.checked.damage:
        if not one.lost:
            end = "nothing is lost"
        elif one.event_id in known or 0 < one.number <= read_before:
            end = HELD
        else:
            end = LOST
        told += losses.tell(f"{name}, {one.text}", end)
    last = reading.mark.number
    if mark is not None and read_before > last:
        text = f"{name} was cut: it ends after {last} of the {read_before} lines it had"
        told += losses.tell(text, HELD)
    elif mark is not None and reading.checked.hashes.get(read_before, mark.hash) != mark.hash:
        told += losses.tell(f"{name} was replaced by one that says something else", HELD)
    elif mark is not None and not read_before and not last and reading.mark.size < mark.size:
        told += losses.tell(f"{name} was cut: it is shorter than it was", HELD)
    strange = {one.id for one in refused} - store.known([one.id for one in refused])
    if strange:
        text = f"{name} has {len(strange)} events that are not of its trial or not of its time"
        told += losses.tell(text, "they were not taken")
    if len(told) > MOST:
        return [*told[:MOST], f"{name} has {len(told) - MOST} more such lines"]
    return told


def _name_gaps(store: Store, study_id: str, paths: Sequence[Path], losses: Losses) -> list[str]:
    """What can no longer be shown of a study whose journals were damaged."""
    try:
        study = store.study(study_id)
    except StoreError as error:
        return losses.tell(str(error), "a line of its journal is missing")
    if study is None:
        return losses.tell(f"study {study_id} cannot be shown", "the line that began it is lost")
    told: list[str] = []
    shown = {trial.id for trial in study.trials}
    for trial_id in sorted({path.stem.rpartition("-")[0] for path in paths} - shown - {""}):
        text = f"trial {trial_id} of study {study_id} cannot be shown"
        told += losses.tell(text, "the line that queued it is lost")
    for trial in study.trials:
        if study.state == "done" and trial.state not in ENDED:
            text = f"trial {trial.id} of study {study_id} has no end"
            told += losses.tell(text, f"`trimtab resume {study_id}` runs it again")
    return told


def _gone_studies(
    store: Store, marks: dict[tuple[str, str], Mark], gone: Sequence[str], losses: Losses
) -> Found:
    """One sentence for all studies whose folders are gone."""
    lost = [mark for mark in marks.values() if mark.study_id in gone and mark.size != GONE]
    names = sorted({mark.study_id for mark in lost})
    if not names:
        return Found()
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    count = f"{len(names)} studies" if len(names) > 1 else "study"
    text = f"the journals of {count} {some} are missing beside the store"
    found = Found(0, tuple(losses.tell(text, HELD)))
    store.ingest((), [replace(mark, size=GONE) for mark in lost])
    return found


def _name(study_id: str, file: str) -> str:
    return f"{study_id}/{file}" if study_id else file


def _can_be_kept(one: Event) -> bool:
    try:
        rows_of([one])
    except StoreError:
        return False
    return True
