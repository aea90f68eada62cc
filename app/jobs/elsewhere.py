"""A study as it lies in a folder that came from elsewhere: which of its lines can be believed, and
a sentence for each that cannot, with its file and line.

What becomes of it is app/ingest.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.jobs.accept import why_not
from core.data.times import moment
from core.errors import BadInput
from core.ids import now
from core.journal.events import Event, ReportSaved, StudyCreated
from core.journal.journal import JournalReading, examine

STUDY = "study.jsonl"
# What this store itself says of a study that was measured elsewhere and did not end there, so that
# the study's own journal stays as it is there and can be gone on with.
HERE = "here.jsonl"
STUDY_ID = re.compile(r"s-[0-9a-z]{1,40}")
FILES = re.compile(r"study\.jsonl|t-[0-9a-z]{1,40}-\d{1,6}\.(?:jsonl|log)")
# A trial may say 256 MiB; what a library prints is cut off by nobody else.
LONGEST = {".jsonl": 512 << 20, ".log": 16 << 20}
# Sentences about one journal before the rest is counted.
MOST = 5


@dataclass(frozen=True)
class FoundStudy:
    """A study as it lies in a folder: the events of its journals that are believed."""

    id: str
    journals: Mapping[str, JournalReading]
    logs: tuple[Path, ...]
    events: tuple[Event, ...]
    notices: tuple[str, ...]


def places(folder: Path) -> list[Path]:
    """The folders of studies: this one, or those in it."""
    try:
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder")
        if (folder / STUDY).is_file():
            return [folder]
        found = sorted(path.parent for path in folder.glob(f"*/{STUDY}") if path.is_file())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}") from None
    if not found:
        raise BadInput(
            f"{folder} holds no journals: give the folder that `python -m core.measure.study`"
            f" wrote, or a study's folder in it with its {STUDY}"
        )
    return found


def read(place: Path) -> FoundStudy:
    """The study of a folder; BadInput when it says of none."""
    paths = {path.name: path for path in _files(place)}
    study_id = _id(place / STUDY)
    journals: dict[str, JournalReading] = {}
    events: list[Event] = []
    notices: list[str] = []
    for name, path in paths.items():
        if path.suffix != ".jsonl":
            continue
        reading = examine(path, study_id)
        if not reading.checked.hashes:
            notices.append(
                f"{path} was not taken: no line of it carries the hashes of a journal of {study_id}"
            )
            continue
        journals[name] = reading
        refusals = {event.id: why_not(path, event, study_id) for event in reading.checked.events}
        strange = [(key, why) for key, why in refusals.items() if why is not None]
        notices += _strange(path, strange)
        events += [e for e in reading.checked.events if refusals[e.id] is None]
    own = journals.get(STUDY)
    if own is None or not any(event.is_a(StudyCreated) for event in events):
        raise BadInput(
            f"{place / STUDY} does not say what study it is of, or was changed: it was not taken"
        )
    report = next((e for e in own.checked.events if e.is_a(ReportSaved)), None)
    if report is not None:
        line = _line(place / STUDY, report.id)
        raise BadInput(
            f"{place / STUDY}, line {line} holds a report, which no study's journal does"
        )
    last = max((event.at for event in events), key=moment)
    if moment(last) > moment(now()):
        raise BadInput(
            f"{place / STUDY} was written at {last} UTC, and it is {now()} here: set the clocks"
            " right, or take it in then, because events are ordered by their time"
        )
    logs = tuple(path for path in paths.values() if path.suffix == ".log")
    return FoundStudy(study_id, journals, logs, tuple(events), tuple(notices))


def _files(place: Path) -> Iterator[Path]:
    """Journals and logs of a study's folder; BadInput for one that is a link or too large."""
    for path in sorted(place.iterdir()):
        if not FILES.fullmatch(path.name):
            continue
        if path.is_symlink() or not path.is_file():
            raise BadInput(f"{path} is a link or no file: the study was not taken")
        most = LONGEST[path.suffix]
        if path.stat().st_size <= most:
            yield path
        elif path.suffix == ".jsonl":
            raise BadInput(
                f"{path} is larger than the {most >> 20} MiB of any journal: it was not taken"
            )


def _id(path: Path) -> str:
    """The study that a journal says it is of; BadInput when it says of none."""
    if path.is_symlink():
        raise BadInput(f"{path} is a link: the study was not taken")
    with path.open("rb") as file:
        words = re.search(rb'"study":"([^"]*)"', file.readline(1 << 20))
    name = words[1].decode("utf-8", "replace") if words else ""
    if not STUDY_ID.fullmatch(name):
        raise BadInput(f"{path}, line 1 does not say of which study it is: it was not taken")
    return name


def _strange(path: Path, refused: list[tuple[str, str]]) -> list[str]:
    """A sentence for each event that was not taken."""
    sentences = [
        f"{path}, line {_line(path, key)} was not taken: it is {why}" for key, why in refused[:MOST]
    ]
    if len(refused) > MOST:
        sentences.append(f"{path} has {len(refused) - MOST} more such lines")
    return sentences


def _line(path: Path, event_id: str) -> int:
    """The line on which an event stands, from 1."""
    wanted = f'"id":"{event_id}"'.encode()
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, 1) if wanted in line), 0)
