"""What happens to a study, as events: one JSON object a line in the journal, ingested by the store
idempotently.

The journal is the truth; tables are made from it. An event's id is unique for ever, so that reading
a journal twice changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.errors import BadInput
from core.ids import new_id, now
from core.journal import codec
from core.measurement import Measurement
from core.study import KernelCalls, Study, Trial

KINDS = (
    "study-created",  # {"study": Study without trials}
    "study-state",  # {"state", "reason"}
    "trial-queued",  # {"trial": Trial}; position in the study is the order of arrival
    "trial-started",  # {"attempt", "pid"}
    "progress",  # {"attempt", "stage", "share"}  share in [0, 1]
    "environment",  # {"environment": id, "facts": {...}}
    "measurement",  # {"attempt", "measurement": Measurement}
    "kernels",  # {"attempt", "kernels": [KernelCalls]}
    "note",  # {"attempt", "text"}  one line of the log; "caution": the kind of a caution
    "trial-ended",  # {"attempt", "state", "reason"}
    "report-saved",  # {"report": Report}; in a journal beside the studies
)


@dataclass(frozen=True)
class Event:
    """`body` is JSON-ready data; dataclasses inside are written by codec.to_data."""

    id: str
    kind: str
    study_id: str
    trial_id: str
    at: str
    body: dict[str, Any]


def event(kind: str, study_id: str, trial_id: str = "", **body: Any) -> Event:
    """A new event of now; dataclasses in `body` are encoded."""
    if kind not in KINDS:
        raise ValueError(f"unknown event kind {kind!r}")
    return Event(
        new_id("e"),
        kind,
        study_id,
        trial_id,
        now(),
        {key: codec.to_data(item) for key, item in body.items()},
    )


def study_created(study: Study) -> Event:
    """The first event of a study's journal."""
    return event("study-created", study.id, study=study.with_trials(()))


def trial_queued(trial: Trial) -> Event:
    """A trial joins its study."""
    return event("trial-queued", trial.study_id, trial.id, trial=trial)


def measured(study_id: str, trial_id: str, attempt: int, measurement: Measurement) -> Event:
    """A measurement was taken."""
    return event("measurement", study_id, trial_id, attempt=attempt, measurement=measurement)


def kernels_ran(
    study_id: str, trial_id: str, attempt: int, kernels: tuple[KernelCalls, ...]
) -> Event:
    """Which kernels ran, counted at the call."""
    return event("kernels", study_id, trial_id, attempt=attempt, kernels=kernels)


def to_line(one: Event) -> str:
    """One line of JSON without a line end."""
    return json.dumps(
        {
            "id": one.id,
            "kind": one.kind,
            "study": one.study_id,
            "trial": one.trial_id,
            "at": one.at,
            "body": one.body,
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def from_line(line: str) -> Event:
    """Read a journal line; BadInput when it is cut off or not an event."""
    try:
        data = json.loads(line)
        found = Event(
            data["id"], data["kind"], data["study"], data["trial"], data["at"], data["body"]
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput("a journal line is not an event: it was cut off or damaged") from None
    if found.kind not in KINDS:
        raise BadInput(f"a journal line has the unknown kind {found.kind!r}")
    if not all(
        isinstance(part, str) for part in (found.id, found.study_id, found.trial_id, found.at)
    ):
        raise BadInput("a journal line has an id or a time that is not text: it was damaged")
    if not isinstance(found.body, dict):
        raise BadInput("a journal line has no body: it was damaged")
    return found
