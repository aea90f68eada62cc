"""A store beside its journals as a real study leaves them, for tests that then damage one of them.

Needs no supervisor: the journals are written, then the store takes them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.journal.events import Event
from core.journal.journal import Journal
from core.report import Report
from store.health.check import check_all
from store.health.recovery import close_sealed, open_checked
from store.interface import Store


def folder_of(file: Path) -> Path:
    return file.with_name(file.name + ".studies")


def opened(file: Path) -> tuple[Store, tuple[str, ...]]:
    return open_checked(str(file), folder_of(file))


def close(store: Store, file: Path) -> None:
    close_sealed(store, str(file), folder_of(file))


def journal_of(file: Path, one: Event) -> Path:
    """Where an event is written: the study's journal, or that of its trial's attempt."""
    if one.trial_id and one.kind not in ("trial-queued", "study-state"):
        name = f"{one.trial_id}-{one.body.get('attempt', 1)}.jsonl"
    else:
        name = "study.jsonl"
    return folder_of(file) / one.study_id / name


def write(file: Path, events: Sequence[Event]) -> None:
    """Write the journals of `events`; progress is never journalled."""
    by_path: dict[Path, list[Event]] = {}
    for one in events:
        if one.kind != "progress":
            by_path.setdefault(journal_of(file, one), []).append(one)
    for path, some in by_path.items():
        with Journal(path) as journal:
            journal.extend(some)


def report(store: Store, study_id: str, title: str = "Choice") -> Report:
    study = store.study(study_id)
    assert study is not None
    made = Report(f"r-{study_id}", 1, title, study, (), "", "2026-11-21T10:00:00.000")
    store.save_report(made)
    return made


def check_in(store: Store, file: Path) -> None:
    """Take in what was journalled meanwhile."""
    check_all(store, folder_of(file))
