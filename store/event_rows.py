"""One event -> the rows that it leaves in the tables, kind by kind. Pure; knows no database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from core.journal import codec
from core.journal.events import (
    EnvironmentRecorded,
    EventContent,
    KernelsRan,
    MeasurementTaken,
    NoteWritten,
    ReportSaved,
    StudyCreated,
    StudyStateChanged,
    TrialEnded,
    TrialProgressed,
    TrialQueued,
    TrialStarted,
)
from core.report import Report
from core.study import ENDED, TRIAL_STATES, KernelCalls, Trial
from store.health.clean import clean, clean_data, clean_time, finite, whole
from store.interface import TableRow
from store.measurement_rows import measurement_columns

Document = TypeVar("Document")

QUEUED, STARTED, FINISHED = 0, 1, 2


@dataclass(frozen=True)
class Keys:
    """The columns that every row made from an event begins with, and the event's time as text."""

    event_id: str
    study_id: str
    trial_id: str
    time: str

    def of_study(self) -> TableRow:
        return {"event_id": self.event_id, "study_id": self.study_id}

    def of_trial(self) -> TableRow:
        return self.of_study() | {"trial_id": self.trial_id}

    def of_part(self, position: int, attempt: Any) -> TableRow:
        return {
            "event_id": self.event_id,
            "study_id": self.study_id,
            "trial_id": self.trial_id,
            "position": position,
            "attempt": whole(attempt),
        }


Named = Iterable[tuple[str, TableRow]]


def _study_created(keys: Keys, at: datetime, content: StudyCreated) -> Named:
    study = cleaned_document(content.study)
    study = replace(study, created_at=clean_time(study.created_at))
    if study.id != keys.study_id:
        raise ValueError(f"it holds the study {study.id!r}")
    yield (
        "studies",
        keys.of_study()
        | {
            "happened_at": at,
            "created_at": study.created_at,
            "model_id": study.case.model.id,
            "target_id": study.case.target.id,
            "workload_id": study.case.workload.id,
            "preset": study.preset,
            "document": codec.dumps(study.with_trials(())),
        },
    )
    yield "study_states", _study_state_row(keys, at, study.state, study.reason)
    for trial in study.trials:
        yield from _trial_rows(replace(keys, trial_id=trial.id), at, trial)


def _study_state(keys: Keys, at: datetime, content: StudyStateChanged) -> Named:
    yield "study_states", _study_state_row(keys, at, content.state, content.reason)


def _study_state_row(keys: Keys, at: datetime, state: str, reason: str) -> TableRow:
    return keys.of_study() | {"happened_at": at, "state": state, "reason": clean(reason)}


def _trial_queued(keys: Keys, at: datetime, content: TrialQueued) -> Named:
    trial = cleaned_document(content.trial)
    if trial.id != keys.trial_id:
        raise ValueError(f"it holds the trial {trial.id!r}")
    yield from _trial_rows(keys, at, trial)


def _trial_rows(keys: Keys, at: datetime, trial: Trial) -> Named:
    plan, attempt = trial.plan, trial.attempt
    names = {
        "model_id": plan.case.model.id,
        "target_id": plan.case.target.id,
        "workload_id": plan.case.workload.id,
    }
    searchable = "\n".join((keys.trial_id, keys.study_id, plan.title, *names.values()))
    yield (
        "trials",
        keys.of_trial()
        | names
        | {
            "happened_at": at,
            "title": plan.title,
            "techniques": "".join(f",{technique.name}" for technique in plan.techniques) + ",",
            "searchable": searchable.casefold(),
            "plan_key": plan.key,
            "plan": codec.dumps(plan),
        },
    )
    if trial.state not in TRIAL_STATES:
        raise ValueError(f"the trial state {trial.state!r} is unknown")
    step = QUEUED if trial.state == "queued" else FINISHED if trial.state in ENDED else STARTED
    times = {"started_at": clean_time(trial.started_at), "ended_at": clean_time(trial.ended_at)}
    yield "trial_states", _state_row(keys, at, attempt, step, trial.state, trial.reason, **times)
    for position, measurement in enumerate(trial.measurements):
        yield "measurements", keys.of_part(position, attempt) | measurement_columns(measurement)
    yield from _kernel_rows(keys, attempt, trial.kernels)
    for position, note in enumerate(trial.notes):
        yield "notes", keys.of_part(position, attempt) | {"text": note}


def _trial_started(keys: Keys, at: datetime, content: TrialStarted) -> Named:
    pid = None if content.pid is None else whole(content.pid)
    times = {"started_at": clean_time(keys.time), "pid": pid}
    yield "trial_states", _state_row(keys, at, content.attempt, STARTED, "running", "", **times)


def _trial_ended(keys: Keys, at: datetime, content: TrialEnded) -> Named:
    state, reason = content.state, content.reason
    times = {"ended_at": clean_time(keys.time)}
    yield "trial_states", _state_row(keys, at, content.attempt, FINISHED, state, reason, **times)


def _state_row(
    keys: Keys, at: datetime, attempt: int, step: int, state: str, reason: str, **times: Any
) -> TableRow:
    row = keys.of_trial() | {"attempt": whole(attempt), "step": step, "happened_at": at}
    row |= {"state": state, "reason": clean(reason)}
    return row | {"started_at": "", "ended_at": "", "pid": None} | times


def _progress(keys: Keys, at: datetime, content: TrialProgressed) -> Named:
    row = keys.of_trial() | {"attempt": whole(content.attempt), "happened_at": at}
    yield "progress", row | {"stage": clean(content.stage), "share": finite(content.share)}


def _environment(keys: Keys, at: datetime, content: EnvironmentRecorded) -> Named:
    yield (
        "environments",
        {
            "event_id": keys.event_id,
            "environment_id": clean(content.environment),
            "happened_at": at,
            "facts": json.dumps(clean_data(content.facts), allow_nan=False),
        },
    )


def _measurement(keys: Keys, _at: datetime, content: MeasurementTaken) -> Named:
    yield (
        "measurements",
        keys.of_part(0, content.attempt) | measurement_columns(content.measurement),
    )


def _kernels(keys: Keys, _at: datetime, content: KernelsRan) -> Named:
    yield from _kernel_rows(keys, content.attempt, content.kernels)


def _kernel_rows(keys: Keys, attempt: int, kernels: tuple[KernelCalls, ...]) -> Named:
    for position, kernel in enumerate(kernels):
        row = {
            "op": clean(kernel.op),
            "name": clean(kernel.name),
            "calls": whole(kernel.calls, 63),
        }
        yield "kernel_calls", keys.of_part(position, attempt) | row


def _note(keys: Keys, _at: datetime, content: NoteWritten) -> Named:
    yield "notes", keys.of_part(0, content.attempt) | {"text": clean(content.line)}


def _report_saved(_keys: Keys, _at: datetime, content: ReportSaved) -> Named:
    yield "reports", report_columns(content.report)


ROWS: dict[type[EventContent], Callable[[Keys, datetime, Any], Named]] = {
    StudyCreated: _study_created,
    StudyStateChanged: _study_state,
    TrialQueued: _trial_queued,
    TrialStarted: _trial_started,
    TrialProgressed: _progress,
    EnvironmentRecorded: _environment,
    MeasurementTaken: _measurement,
    KernelsRan: _kernels,
    NoteWritten: _note,
    TrialEnded: _trial_ended,
    ReportSaved: _report_saved,
}


def cleaned_document(document: Document) -> Document:
    """A study, trial or report whose texts can be kept."""
    cleaned: Document = codec.from_data(clean_data(codec.to_data(document)))
    return cleaned


def report_columns(report: Report) -> TableRow:
    kept = cleaned_document(report)
    kept = replace(kept, created_at=clean_time(kept.created_at))
    return {
        "report_id": kept.id,
        "version": whole(kept.version),
        "title": kept.title,
        "study_id": kept.study.id,
        "created_at": kept.created_at,
        "document": codec.dumps(kept),
    }
