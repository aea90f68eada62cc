"""Which events of a study's journals the store keeps: those that are believed
(core.measure.child.belief) and that it can keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from core.errors import StoreError
from core.journal.events import Event
from core.measure.child.belief import damaged, refusal
from store.rows import rows_of

_JOURNAL = re.compile(r"(t-[0-9a-z]+)-(\d+)\.jsonl")


def believed(path: Path, events: Iterable[Event], study_id: str) -> list[Event]:
    """The events of one journal in a study's folder that may be kept: a trial's journal speaks of
    that attempt, the study's own of the study.
    """
    return [event for event in events if why_not(path, event, study_id) is None]


def why_not(path: Path, event: Event, study_id: str) -> str | None:
    """Why an event of this journal is not kept, in words that end a sentence; None when it is."""
    name = _JOURNAL.fullmatch(path.name)
    if name is not None:
        return refusal(event, study_id, name[1], int(name[2])) or unfit(event)
    return "an event of another study" if event.study_id != study_id else unfit(event)


def unfit(event: Event) -> str | None:
    """Why a store cannot keep an event, in words that end a sentence; None when it can."""
    try:
        rows_of([event])
    except StoreError:
        return damaged(event)
    return None
