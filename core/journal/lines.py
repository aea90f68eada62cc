"""An event as a line of JSON, in a journal or between a trial's process and its supervisor."""

from __future__ import annotations

import json

from core.errors import BadInput
from core.journal.events import CONTENTS, Event


def to_line(event: Event) -> str:
    """One line of JSON without a line end; an unknown author is left out."""
    who = {"who": event.who} if event.who else {}
    return json.dumps(
        {
            "id": event.id,
            "kind": event.kind,
            "study": event.study_id,
            "trial": event.trial_id,
            "at": event.at,
            **who,
            "body": event.body,
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def from_line(line: str) -> Event:
    """Read a journal line; BadInput when it is cut off or not an event."""
    try:
        data = json.loads(line)
        texts = (data["id"], data["study"], data["trial"], data["at"], data.get("who", ""))
        kind, body = data["kind"], data["body"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput("a journal line is not an event: it was cut off or damaged") from None
    if not isinstance(kind, str) or kind not in CONTENTS:
        raise BadInput(f"a journal line has the unknown kind {kind!r}")
    if not all(isinstance(text, str) for text in texts):
        raise BadInput("a journal line has an id, a time or a name that is no text: it was damaged")
    if not isinstance(body, dict):
        raise BadInput("a journal line has no body: it was damaged")
    id_, study_id, trial_id, at, who = texts
    return Event(id_, kind, study_id, trial_id, at, body, who)
