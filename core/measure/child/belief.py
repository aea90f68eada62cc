"""What is believed of a trial's events: those of this very trial that say what such events can say.

A trial's process may be broken in any way; what it says is read as if a stranger had sent it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from core.data.times import moment
from core.errors import BadInput
from core.ids import new_id
from core.journal.events import CONTENTS, AttemptContent, Event, NoteWritten, TrialEnded

SAID_ENDS = frozenset({"done", "failed", "refused"})
# Characters of a line of a trial's log; a sentence has some hundred.
NOTE = 20_000
_ID = re.compile(r"e-[0-9a-z]{14}")
# Why whoever keeps events cannot keep this one, in words that end a sentence; None when it can.
Unfit = Callable[[Event], str | None]


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
        moment(event.at)
        content = event.content()
    except (BadInput, ValueError, OverflowError):
        return damaged(event)
    if isinstance(content, TrialEnded) and content.state not in SAID_ENDS:
        return "an end that no trial can declare"
    if isinstance(content, NoteWritten) and len(content.line) > NOTE:
        return f"a note of more than {NOTE:,} characters"
    return None


def damaged(event: Event) -> str:
    """The words for an event that does not say what its kind says."""
    return f"a damaged event of the kind {event.kind}"
