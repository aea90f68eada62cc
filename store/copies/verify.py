"""The slow, obvious check: every study as the store answers it, against the same study made in
plain memory from its journals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import StoreError
from core.journal.journal import examine
from store.health.check import REPORTS, Believe, of_study
from store.interface import Store
from store.memory import MemoryStore


@dataclass(frozen=True)
class Verified:
    """How much was compared, and a sentence for each study or report that differs."""

    studies: int
    journals: int
    sentences: tuple[str, ...]


def differences(store: Store, folder: Path, believe: Believe = of_study) -> Verified:
    """Compare every study and report that has a journal."""
    sentences: list[str] = []
    journals = 0
    places = sorted(path for path in folder.iterdir() if path.is_dir())
    for place in places:
        paths = sorted(place.glob("*.jsonl"))
        journals += len(paths)
        other = _from_journals(paths, place.name, believe)
        try:
            if store.study(place.name) == other.study(place.name):
                continue
            text = "is not what its journals say"
        except StoreError as error:
            text = f"cannot be compared: {error}"
        sentences.append(
            f"study {place.name} in the store {text}: `trimtab doctor --rebuild-store` makes the"
            " store again"
        )
    reports = _from_journals([folder / REPORTS], "", believe)
    for newest in reports.reports():
        for version in range(1, newest.version + 1):
            if store.report(newest.id, version) != reports.report(newest.id, version):
                sentences.append(f"report {newest.id} version {version} is not what was saved")
    return Verified(len(places), journals, tuple(sentences))


def _from_journals(paths: list[Path], study_id: str, believe: Believe) -> MemoryStore:
    store = MemoryStore()
    for path in paths:
        events = examine(path, study_id).checked.events
        store.ingest(believe(path, events, study_id))
    return store
