"""Events: what can happen to studies, trials and reports, and who did it.

Owns the schema: one class a kind of event, whose fields are its body in a journal. A new kind is a
class here, its rows in store/rows.py, and a table with its migration where it needs one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from core.caution import Caution
from core.errors import BadInput
from core.ids import new_id, now
from core.journal import codec
from core.measurement import Measurement
from core.report import Report
from core.study import ENDED, STUDY_STATES, KernelCalls, Study, Trial

WHO_LIMIT = 100


@dataclass(frozen=True)
class Event:
    """`body` holds the fields of the kind's class as JSON-ready data, written by codec.to_data.
    `who` names the person who did it, or for whom a program did; empty when nobody is known.
    """

    id: str
    kind: str
    study_id: str
    trial_id: str
    at: str
    body: dict[str, Any]
    who: str = ""

    def is_a(self, kind: type[EventContent]) -> bool:
        """Whether it is an event of this kind."""
        return self.kind == kind.KIND

    @property
    def is_journalled(self) -> bool:
        """Whether it is written to a journal."""
        return _kind(self.kind).JOURNALLED

    @property
    def attempt(self) -> Any:
        """The attempt of a trial that it speaks of; None when it names none."""
        return self.body.get("attempt")

    def content(self) -> EventContent:
        """What it says; BadInput names what is missing or damaged."""
        kind = _kind(self.kind)
        return codec.fields_from(kind, self.body, self.kind)


@dataclass(frozen=True)
class EventContent:
    """What the events of one kind say. `BY_TRIAL` marks what a trial's own process may say of
    itself, the rest is the supervisor's to say; what is not `JOURNALLED` is forgotten when its
    process ends.
    """

    KIND: ClassVar[str]
    BY_TRIAL: ClassVar[bool] = False
    JOURNALLED: ClassVar[bool] = True

    def event(self, study_id: str, trial_id: str = "", who: str = "") -> Event:
        """An event of now that says it; a field that is None is left out of its body."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        body = {name: codec.to_data(value) for name, value in values.items() if value is not None}
        return Event(new_id("e"), self.KIND, study_id, trial_id, now(), body, who)


@dataclass(frozen=True)
class StudyCreated(EventContent):
    """The first event of a study's journal; the study comes without its trials."""

    KIND: ClassVar[str] = "study-created"
    study: Study


@dataclass(frozen=True)
class StudyStateChanged(EventContent):
    """A study waits, runs, pauses or ends."""

    KIND: ClassVar[str] = "study-state"
    state: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.state not in STUDY_STATES:
            raise ValueError(f"the study state {self.state!r} is unknown")


@dataclass(frozen=True)
class TrialQueued(EventContent):
    """A trial joins its study; its position there is the order of arrival."""

    KIND: ClassVar[str] = "trial-queued"
    trial: Trial


@dataclass(frozen=True)
class AttemptContent(EventContent):
    """What is said of one attempt to run a trial."""

    BY_TRIAL: ClassVar[bool] = True
    attempt: int


@dataclass(frozen=True)
class TrialStarted(AttemptContent):
    """The trial's process is there."""

    KIND: ClassVar[str] = "trial-started"
    pid: int | None = None


@dataclass(frozen=True)
class TrialProgressed(AttemptContent):
    """How far a stage is; `share` lies in [0, 1]."""

    KIND: ClassVar[str] = "progress"
    JOURNALLED: ClassVar[bool] = False
    stage: str
    share: float


@dataclass(frozen=True)
class EnvironmentRecorded(EventContent):
    """The facts of the machine and software, once for each environment id."""

    KIND: ClassVar[str] = "environment"
    BY_TRIAL: ClassVar[bool] = True
    environment: str
    facts: dict[str, Any]
    attempt: int | None = None


@dataclass(frozen=True)
class MeasurementTaken(AttemptContent):
    """A measurement of the trial."""

    KIND: ClassVar[str] = "measurement"
    measurement: Measurement


@dataclass(frozen=True)
class KernelsRan(AttemptContent):
    """Which kernels ran, counted at the call."""

    KIND: ClassVar[str] = "kernels"
    kernels: tuple[KernelCalls, ...]


@dataclass(frozen=True)
class NoteWritten(AttemptContent):
    """One line of the trial's log; `caution` is the kind of a caution (core.caution), which older
    events have in the line itself.
    """

    KIND: ClassVar[str] = "note"
    text: str
    caution: str | None = None

    @property
    def line(self) -> str:
        """The line as the log shows it."""
        return Caution(self.caution, self.text).line if self.caution else self.text


@dataclass(frozen=True)
class TrialEnded(AttemptContent):
    """The attempt ended in this state; `reason` is a sentence unless it is done."""

    KIND: ClassVar[str] = "trial-ended"
    state: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.state not in ENDED:
            raise ValueError(f"a trial does not end in the state {self.state!r}")


@dataclass(frozen=True)
class ReportSaved(EventContent):
    """A version of a report; these stand in a journal beside the studies."""

    KIND: ClassVar[str] = "report-saved"
    report: Report


CONTENTS: dict[str, type[EventContent]] = {
    kind.KIND: kind
    for kind in (
        StudyCreated,
        StudyStateChanged,
        TrialQueued,
        TrialStarted,
        TrialProgressed,
        EnvironmentRecorded,
        MeasurementTaken,
        KernelsRan,
        NoteWritten,
        TrialEnded,
        ReportSaved,
    )
}


def event(kind: str, study_id: str, trial_id: str = "", who: str = "", **body: Any) -> Event:
    """An event of now by the name of its kind, for those who are handed names."""
    if kind not in CONTENTS:
        raise ValueError(f"unknown event kind {kind!r}")
    return CONTENTS[kind](**body).event(study_id, trial_id, who)


def study_created(study: Study) -> Event:
    """The first event of a study's journal."""
    return StudyCreated(study.with_trials(())).event(study.id, who=study.who)


def trial_queued(trial: Trial, who: str = "") -> Event:
    """A trial joins its study."""
    return TrialQueued(trial).event(trial.study_id, trial.id, who)


def named(text: str) -> str:
    """A name as events carry it: on one line, without control characters, at most 100 long."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:WHO_LIMIT]


def _kind(name: Any) -> type[EventContent]:
    kind = CONTENTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BadInput(f"an event has the unknown kind {name!r}")
    return kind
