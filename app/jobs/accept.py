"""What the supervisor believes of a trial's events: those of this very trial that a store can keep.

A trial's process may be broken in any way; what it says is read as if a stranger had sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from core.errors import BadInput, StoreError
from core.ids import new_id
from core.journal.events import CONTENTS, AttemptContent, Event, NoteWritten, TrialEnded
from store.rows import rows_of

SAID_ENDS = frozenset({"done", "failed", "refused"})
# Characters of a line of a trial's log; a sentence has some hundred.
NOTE = 20_000
_ID = re.compile(r"e-[0-9a-z]{14}")
_JOURNAL = re.compile(r"(t-[0-9a-z]+)-(\d+)\.jsonl")


def refusal(
    event: Event, study_id: str, trial_id: str, attempt: int, who: str | None = None
) -> str | None:
    """Why an event that this attempt's process sent is not believed, in words that end a sentence;
    None when it is. The process runs for `who`, when that is known.
    """
    if not CONTENTS[event.kind].BY_TRIAL:
        return f"an event of the kind {event.kind}, which is not its to send"
    if (event.study_id, event.trial_id) != (study_id, trial_id):
        return "an event of another trial"
    if issubclass(CONTENTS[event.kind], AttemptContent) and event.attempt != attempt:
        return "an event of another attempt"
    if who is not None and event.who != who:
        return "an event in another name"
    if not _ID.fullmatch(event.id) or event.id > new_id("e"):
        return "an event with a forged id"
    try:
        content = event.content()
    except BadInput:
        return f"a damaged event of the kind {event.kind}"
    if isinstance(content, TrialEnded) and content.state not in SAID_ENDS:
        return "an end that no trial can declare"
    if isinstance(content, NoteWritten) and len(content.line) > NOTE:
        return f"a note of more than {NOTE:,} characters"
    return _damage(event)


def believed(path: Path, events: Iterable[Event], study_id: str) -> list[Event]:
    """The events of one journal in a study's folder that may be kept: a trial's journal speaks of
    that attempt, the study's own of the study.
    """
    name = _JOURNAL.fullmatch(path.name)
    if name is None:
        return [event for event in events if event.study_id == study_id and not _damage(event)]
    trial_id, attempt = name[1], int(name[2])
    return [event for event in events if not refusal(event, study_id, trial_id, attempt)]


def _damage(event: Event) -> str | None:
    try:
        rows_of([event])
    except StoreError:
        return f"a damaged event of the kind {event.kind}"
    return None
