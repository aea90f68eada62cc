"""What the supervisor believes of a trial's events: those of this very trial that a store can keep.

A trial's process may be broken in any way; what it says is read as if a stranger had sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from core.errors import StoreError
from core.ids import new_id
from core.journal.events import Event
from store.rows import rows_of

# What a trial may say of itself. The rest is the supervisor's to say.
SAID_BY_TRIALS = frozenset(
    {
        "trial-started",
        "progress",
        "environment",
        "measurement",
        "kernels",
        "note",
        "trial-ended",
    }
)
SAID_ENDS = frozenset({"done", "failed", "refused"})
# Characters of a line of a trial's log; a sentence has some hundred.
NOTE = 20_000
_ID = re.compile(r"e-[0-9a-z]{14}")
_JOURNAL = re.compile(r"(t-[0-9a-z]+)-(\d+)\.jsonl")


def refusal(one: Event, study_id: str, trial_id: str, attempt: int) -> str | None:
    """Why an event that this attempt's process sent is not believed, in words that end a sentence;
    None when it is.
    """
    if one.kind not in SAID_BY_TRIALS:
        return f"an event of the kind {one.kind}, which is not its to send"
    if (one.study_id, one.trial_id) != (study_id, trial_id):
        return "an event of another trial"
    if one.kind != "environment" and one.body.get("attempt") != attempt:
        return "an event of another attempt"
    if one.kind == "trial-ended" and str(one.body.get("state")) not in SAID_ENDS:
        return "an end that no trial can declare"
    if not _ID.fullmatch(one.id) or one.id > new_id("e"):
        return "an event with a forged id"
    if one.kind == "note" and len(str(one.body.get("text")) + str(one.body.get("caution"))) > NOTE:
        return f"a note of more than {NOTE:,} characters"
    return _damage(one)


def believed(path: Path, events: Iterable[Event], study_id: str) -> list[Event]:
    """The events of one journal in a study's folder that may be kept: a trial's journal speaks of
    that attempt, the study's own of the study.
    """
    name = _JOURNAL.fullmatch(path.name)
    if name is None:
        return [one for one in events if one.study_id == study_id and _damage(one) is None]
    trial_id, attempt = name[1], int(name[2])
    return [one for one in events if refusal(one, study_id, trial_id, attempt) is None]


def _damage(one: Event) -> str | None:
    try:
        rows_of([one])
    except StoreError:
        return f"a damaged event of the kind {one.kind}"
    return None
