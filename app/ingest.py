"""Studies that were measured elsewhere, taken into a store: their journals are checked, copied
beside the store's own, and read in.

Owns what is taken and what is refused; how lines are chained is core.journal.chain's, which of
their words are believed app/jobs/elsewhere.py's. Nothing of a study is touched when one of its
journals does not begin as the one that is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.jobs import elsewhere
from app.jobs.accept import believed
from app.jobs.elsewhere import HERE, STUDY, FoundStudy
from core import disk
from core.errors import BadInput, StoreError
from core.journal.events import (
    EnvironmentRecorded,
    Event,
    StudyStateChanged,
)
from core.journal.journal import Journal, Mark
from core.machine.naming import machine_line
from core.study import ENDED
from store.health.check import take_in
from store.interface import Store


@dataclass(frozen=True)
class Ingested:
    """What a folder brought: the studies that are in the store now, how many events were `new`, a
    sentence for all that was damaged or refused, and one line for each machine.
    """

    study_ids: tuple[str, ...]
    new: int
    notices: tuple[str, ...]
    machines: tuple[str, ...]
    refused: int = 0


def ingest(store: Store, studies_folder: Path, folder: Path, archive: str = "") -> Ingested:
    """Take in the studies of `folder`, which is a study's or holds those of several; doing so again
    changes nothing, and a study that went on meanwhile goes on here. `archive` is what the user
    calls the file that `folder` was unpacked from, for sentences.

    BadInput when there is none, or none could be taken; StoreError when the store cannot be
    written.
    """
    if store.read_only:
        raise StoreError(store.read_only)
    ids: list[str] = []
    notices: list[str] = []
    machines: dict[str, str] = {}
    new = refused = 0
    for place in elsewhere.places(folder):
        try:
            study = elsewhere.read(place)
            fresh = _fresh(study, studies_folder / study.id, store.marks())
        except BadInput as error:
            notices.append(str(error))
            refused += 1
            continue
        except OSError as error:
            name = error.filename or place
            notices.append(f"{name} cannot be read ({error.strerror or error}): it was not taken")
            refused += 1
            continue
        try:
            _copy(study, fresh, studies_folder / study.id)
        except OSError as error:
            raise StoreError(
                f"study {study.id} cannot be kept in {studies_folder}: {error.strerror or error}"
            ) from None
        if any(file in fresh for file in study.journals):
            notices += study.notices
        taken = take_in(store, studies_folder, study.id, believed)
        _settle(store, studies_folder, study, STUDY in fresh)
        ids.append(study.id)
        new += taken.new
        notices += taken.notices
        machines |= _machines(study.events)
    if archive:
        notices = [notice.replace(f"{folder}/", f"{archive}: ") for notice in notices]
    if not ids:
        raise BadInput(" ".join(notices))
    return Ingested(tuple(ids), new, tuple(notices), tuple(machines.values()), refused)


def _fresh(study: FoundStudy, here: Path, marks: Mapping[tuple[str, str], Mark]) -> set[str]:
    """Names of the journals that say more than what is here does; BadInput when one says something
    else.
    """
    fresh = set()
    for file, reading in study.journals.items():
        differs = BadInput(
            f"{reading.path} does not begin as the journal {file} of {study.id} that is here: they"
            " say different things of one study, and neither was touched"
        )
        mark = marks.get((study.id, file))
        read = 0 if mark is None else mark.number
        hashes = reading.checked.hashes
        if mark is not None and read <= reading.mark.number and hashes.get(read, "") != mark.hash:
            raise differs
        own = here / file
        if own.exists():
            theirs, ours = reading.path.read_bytes(), own.read_bytes()
            if not theirs.startswith(ours):
                if not ours.startswith(theirs):
                    raise differs
                continue
            if theirs == ours:
                continue
        elif read > reading.mark.number:
            continue
        fresh.add(file)
    return fresh


def _copy(study: FoundStudy, fresh: set[str], here: Path) -> None:
    """Put what is new into the folder of the study here, its own journal first."""
    here.mkdir(parents=True, exist_ok=True)
    for file in sorted(fresh, key=lambda name: (name != STUDY, name)):
        disk.replace(here / file, study.journals[file].path.read_bytes())
    for log in study.logs:
        own = here / log.name
        if not own.exists() or own.stat().st_size < log.stat().st_size:
            disk.replace(own, log.read_bytes())


def _settle(store: Store, studies_folder: Path, study: FoundStudy, is_new: bool) -> None:
    """Say how the study stands here. One whose journals end before it does is not running here; one
    that has ended meanwhile has, whatever this machine's clock was when it was paused here.
    """
    kept, said = store.study(study.id), _last_state(study.events)
    if kept is None:
        return
    state, reason = said.state, said.reason
    if state in ENDED:
        behind = is_new and kept.state == "paused"
    else:
        behind = is_new or kept.state in ("queued", "running")
        why = f" ({reason})" if reason else ""
        state = "paused"
        reason = (
            f"its journals end before the study does{why}: go on with it where it was measured,"
            " then ingest its folder again"
        )
    if not behind:
        return
    with Journal(studies_folder / study.id / HERE) as journal:
        journal.append(StudyStateChanged(state, reason).event(study.id))
    take_in(store, studies_folder, study.id, believed)


def _last_state(events: tuple[Event, ...]) -> StudyStateChanged:
    """What its journals said last of the study itself."""
    last = StudyStateChanged("queued")
    for event in sorted(events, key=lambda event: event.id):
        content = event.content() if event.is_a(StudyStateChanged) else None
        if isinstance(content, StudyStateChanged):
            last = content
    return last


def _machines(events: tuple[Event, ...]) -> dict[str, str]:
    """A line for each machine that was measured on, with the day; alike ones once."""
    machines: dict[str, str] = {}
    for event in events:
        if event.is_a(EnvironmentRecorded):
            content = event.content()
            assert isinstance(content, EnvironmentRecorded)
            machines.setdefault(machine_line(content.facts), machine_line(content.facts, event.at))
    return machines
