"""Opening a store beside its journals: a spoilt file or log is moved aside, never deleted, and made
again from the journals, and every loss is said.

Owns the seal: a note of the file's size and time, left when a store was closed in order. Without
it everything in the file is read once, because DuckDB finds a damaged block only when it is asked
for.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from core import disk
from core.errors import StoreDamaged, StoreError
from core.journal.events import ReportSaved
from core.journal.journal import Journal
from store import open_store
from store.health.check import REPORTS, Believe, check_all, of_study, take_in
from store.health.losses import Losses
from store.interface import Store
from store.place import WAY_OUT, file_of, why_read_only

SEAL = "store.seal"


def open_checked(
    url: str | None, folder: Path, believe: Believe = of_study, every: bool = False
) -> tuple[Store, tuple[str, ...]]:
    """The store at `url`, which holds all that the journals in `folder` say, and a sentence for
    each loss. `every` reads all of the store and all journals again. StoreError as in open_store.
    """
    place = file_of(url)
    if place is not None and why_read_only(place):
        return _open_read_only(url, folder, every)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder of the journals {folder} cannot be made: {error.strerror}; {WAY_OUT}"
        ) from None
    losses = Losses(folder)
    notices: list[str] = []
    new_file = place is not None and not (place.exists() and place.stat().st_size)
    if every:
        _unseal(folder)
    store = open_store(url) if place is None else _open(url, place, folder, losses, notices)
    try:
        store.reports_journal = folder / REPORTS
        findings = check_all(store, folder, believe, every)
        if new_file and findings.new and not notices:
            text = f"the store {place} was missing"
            means = f"{findings.new} events were read from its journals"
            notices += losses.tell(text, means, again=True)
            notices += losses.hold_no_more()
        _journal_reports(store, folder)
    except BaseException:
        store.close()
        raise
    return store, (*notices, *findings.notices)


def close_sealed(store: Store, url: str | None, folder: Path) -> None:
    """Close the store and leave a seal, unless something in it could not be read."""
    # Saved reports; what stands in the way of it is met again at the next opening.
    with contextlib.suppress(StoreError, OSError):
        if not store.read_only:
            take_in(store, folder, "")
    store.close()
    place = file_of(url)
    if place is None or store.read_only or not store.sound or _log(place).exists():
        return
    with contextlib.suppress(OSError):
        disk.replace(folder / SEAL, _state(place))


def _open(url: str | None, place: Path, folder: Path, losses: Losses, notices: list[str]) -> Store:
    try:
        return _open_sound(url, place, folder)
    except StoreDamaged:
        if not any(folder.glob("*/*.jsonl")) and not (folder / REPORTS).exists():
            raise
    if _log(place).exists():
        moved = _aside(_log(place))
        text = f"the store's log {_log(place)} could not be read and was moved to {moved.name}"
        means = "what it held is read again from the journals"
        notices += losses.tell(text, means, again=True)
        with contextlib.suppress(StoreDamaged):
            return _open_sound(url, place, folder)
    moved = _aside(place)
    text = f"the store {place} could not be read and was moved to {moved.name}"
    notices += losses.tell(text, "a new one was made from the journals", again=True)
    notices += losses.hold_no_more()
    return open_store(url)


def _open_read_only(url: str | None, folder: Path, every: bool) -> tuple[Store, tuple[str, ...]]:
    """A store as it lies there: neither it nor its journals are changed, nor read into it."""
    store = open_store(url)
    try:
        if every:
            store.scan()
        unread = sorted(
            str(path.relative_to(folder))
            for (study_id, name), mark in store.marks().items()
            if (path := folder / study_id / name).is_file() and path.stat().st_size > mark.size >= 0
        )
    except BaseException:
        store.close()
        raise
    notices = [store.read_only]
    if unread:
        notices.append(f"what {', '.join(unread)} of {folder} says since then is not shown")
    return store, tuple(notices)


def _open_sound(url: str | None, place: Path, folder: Path) -> Store:
    sealed = _is_sealed(place, folder)
    store = open_store(url)
    try:
        _unseal(folder)
        if not sealed:
            store.scan()
    except BaseException:
        store.close()
        raise
    return store


def _is_sealed(place: Path, folder: Path) -> bool:
    try:
        return not _log(place).exists() and (folder / SEAL).read_bytes() == _state(place)
    except OSError:
        return False


def _unseal(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / SEAL).unlink(missing_ok=True)


def _state(place: Path) -> bytes:
    status = place.stat()
    return f"{status.st_size} {status.st_mtime_ns}\n".encode()


def _log(place: Path) -> Path:
    return place.with_name(place.name + ".wal")


def _aside(path: Path) -> Path:
    number = 1
    while (moved := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        disk.rename(path, moved)
    except OSError as error:
        raise StoreError(
            f"the store's file {path} is damaged and cannot be moved to {moved.name} "
            f"({error.strerror}): make its folder writable, or move it yourself"
        ) from None
    return moved


def set_aside(url: str | None) -> Path | None:
    """Move the store's file away, so that opening it makes a new one from the journals; returns
    where it lies now, None when there was none. StoreError when another process holds it.
    """
    place = file_of(url)
    if place is None:
        raise StoreError("only a store in a file can be made again from its journals")
    with contextlib.suppress(StoreDamaged):
        if place.exists():
            open_store(url).close()
    if _log(place).exists():
        _aside(_log(place))
    return _aside(place) if place.exists() else None


def _journal_reports(store: Store, folder: Path) -> None:
    """Reports of an older version were only in the store: write them down once."""
    path = folder / REPORTS
    if path.exists():
        return
    reports = [
        report
        for newest in store.reports()
        for version in range(1, newest.version + 1)
        if (report := store.report(newest.id, version)) is not None
    ]
    if reports:
        with Journal(path, "") as journal:
            journal.extend(
                ReportSaved(report).event(report.study.id, who=report.who) for report in reports
            )
            store.ingest((), [journal.mark()])
