"""How a study stands, from the events of its journals alone: what a store would answer, for where
there is none.

The rule is the store's (store/interface.py): of a trial the highest attempt counts, in it the
furthest step, then the newest event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.journal.events import (
    Event,
    KernelsRan,
    MeasurementTaken,
    NoteWritten,
    StudyCreated,
    StudyStateChanged,
    TrialEnded,
    TrialQueued,
    TrialStarted,
)
from core.journal.journal import read
from core.measure.child.belief import refusal
from core.measurement import Measurement
from core.study import KernelCalls, Study, Trial

STUDY = "study.jsonl"
_JOURNAL = re.compile(r"(t-[0-9a-z]+)-(\d+)\.jsonl")


@dataclass
class _Attempt:
    """What one attempt of a trial said; `at` orders states, `who` asked for it."""

    at: tuple[int, str] = (0, "")
    who: str = ""
    state: str = "queued"
    reason: str = ""
    started_at: str = ""
    ended_at: str = ""
    measurements: list[Measurement] = field(default_factory=list)
    kernels: list[KernelCalls] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Standing:
    """A listener for one study's events, each told once."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._created: Study | None = None
        self._state = ("", "queued", "")
        self._trials: dict[str, Trial] = {}
        self._attempts: dict[str, dict[int, _Attempt]] = {}
        for event in sorted(events, key=lambda event: event.id):
            self(event)

    @property
    def study(self) -> Study | None:
        """The study with its trials as they stand; None before it was created."""
        if self._created is None:
            return None
        _, state, reason = self._state
        trials = tuple(self._trial(trial) for trial in self._trials.values())
        return replace(self._created, state=state, reason=reason, trials=trials)

    def __call__(self, event: Event) -> None:
        """Called for every event that is kept."""
        content = event.content()
        match content:
            case StudyCreated(study):
                self._created = self._created or replace(study, who=event.who)
            case StudyStateChanged(state, reason):
                self._state = max(self._state, (event.id, state, reason))
            case TrialQueued(trial):
                self._trials.setdefault(event.trial_id, replace(trial, who=event.who))
            case TrialStarted(attempt):
                told = self._of(event, attempt)
                told.started_at, told.who = event.at, event.who
                self._step(told, (1, event.id), "running", "")
            case TrialEnded(attempt, state, reason):
                told = self._of(event, attempt)
                told.ended_at = event.at
                if not told.at[0] and attempt:
                    told.who = event.who
                self._step(told, (2, event.id), state, reason)
            case MeasurementTaken(attempt, measurement):
                self._of(event, attempt).measurements.append(measurement)
            case KernelsRan(attempt, kernels):
                self._of(event, attempt).kernels.extend(kernels)
            case NoteWritten(attempt):
                self._of(event, attempt).notes.append(content.line)

    def _of(self, event: Event, attempt: int) -> _Attempt:
        return self._attempts.setdefault(event.trial_id, {}).setdefault(attempt, _Attempt())

    @staticmethod
    def _step(told: _Attempt, at: tuple[int, str], state: str, reason: str) -> None:
        if at > told.at:
            told.at, told.state, told.reason = at, state, reason

    def _trial(self, trial: Trial) -> Trial:
        attempts = {n: told for n, told in self._attempts.get(trial.id, {}).items() if told.at[0]}
        if not attempts:
            return trial
        number = max(attempts)
        told = attempts[number]
        return replace(
            trial,
            state=told.state,
            reason=told.reason,
            attempt=number,
            started_at=told.started_at,
            ended_at=told.ended_at,
            measurements=tuple(told.measurements),
            kernels=tuple(told.kernels),
            notes=tuple(told.notes),
            who=told.who if number else trial.who,
        )


def standing_of(folder: Path) -> Standing:
    """Of the study whose journals lie in `folder`; what cannot be believed is passed over."""
    own = read(folder / STUDY)[0]
    events = {event.id: event for event in own if event.study_id == folder.name}
    for path in sorted(folder.glob("t-*.jsonl")):
        name = _JOURNAL.fullmatch(path.name)
        if name is not None:
            about = (folder.name, name[1], int(name[2]))
            events |= {event.id: event for event in read(path)[0] if refusal(event, *about) is None}
    return Standing(events.values())
