"""Events -> rows: what each event leaves in which table. Pure; knows no database.

Both stores go through here, so that they keep the same things and refuse the same damage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from core.caution import line_of
from core.errors import BadInput, StoreError
from core.journal import codec
from core.journal.events import KINDS, Event
from core.measurement import Measurement
from core.report import Report
from core.study import ENDED, STUDY_STATES, TRIAL_STATES, KernelCalls, Study, Trial
from core.times import moment
from store.health.clean import clean, clean_data, clean_time, finite, whole
from store.interface import TrialFilter

Row = dict[str, Any]
Rows = dict[str, list[Row]]

QUEUED, STARTED, FINISHED = 0, 1, 2
_DAMAGES = (
    BadInput,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def rows_of(events: Iterable[Event]) -> Rows:
    """The rows of `events` by table name; StoreError names the event that is damaged."""
    found: Rows = {}
    for event in events:
        try:
            keys = Keys(clean(event.id), clean(event.study_id), clean(event.trial_id))
            at = moment(event.at)
            for table, row in _MAKERS[event.kind](keys, at, event):
                found.setdefault(table, []).append(row)
        except _DAMAGES as error:
            raise StoreError(_damage(event, error)) from None
        row = {
            "id": keys.event_id,
            "kind": event.kind,
            "study_id": keys.study_id,
            "trial_id": keys.trial_id,
            "happened_at": at,
        }
        found.setdefault("events", []).append(row)
    return found


def by_id(events: Iterable[Event]) -> dict[str, Event]:
    """Events by the id under which they are kept; of equal ids the first."""
    found: dict[str, Event] = {}
    for event in events:
        try:
            found.setdefault(clean(event.id), event)
        except TypeError as error:
            raise StoreError(_damage(event, error)) from None
    return found


def cleaned(wanted: TrialFilter) -> TrialFilter:
    """A filter whose texts are as the rows have them; the text is case folded."""
    given = {key: clean_data(value) for key, value in vars(wanted).items()}
    return TrialFilter(**given | {"text": given["text"].casefold()})


def report_row(report: Report) -> Row:
    """The row of a report version; StoreError when it cannot be kept."""
    try:
        kept = codec.from_data(clean_data(codec.to_data(report)))
        kept = replace(kept, created_at=clean_time(kept.created_at))
        return {
            "report_id": kept.id,
            "version": whole(kept.version),
            "title": kept.title,
            "study_id": kept.study.id,
            "created_at": kept.created_at,
            "document": codec.dumps(kept),
        }
    except _DAMAGES as error:
        raise StoreError(f"report {report.id} cannot be kept: {error}") from None


@dataclass(frozen=True)
class Keys:
    """The columns that every row made from an event begins with."""

    event_id: str
    study_id: str
    trial_id: str

    def of_study(self) -> Row:
        return {"event_id": self.event_id, "study_id": self.study_id}

    def of_trial(self) -> Row:
        return self.of_study() | {"trial_id": self.trial_id}

    def of_part(self, position: int, attempt: Any) -> Row:
        return {
            "event_id": self.event_id,
            "study_id": self.study_id,
            "trial_id": self.trial_id,
            "position": position,
            "attempt": whole(attempt),
        }


Made = Iterable[tuple[str, Row]]
_FLOAT = frozenset({float})


def _study_created(keys: Keys, at: datetime, event: Event) -> Made:
    study = _decoded(clean_data(event.body["study"]), Study)
    study = replace(study, created_at=clean_time(study.created_at))
    if study.id != keys.study_id:
        raise ValueError(f"it holds the study {study.id!r}")
    yield (
        "studies",
        keys.of_study()
        | {
            "happened_at": at,
            "created_at": study.created_at,
            "model_id": clean(study.case.model.id),
            "target_id": clean(study.case.target.id),
            "workload_id": clean(study.case.workload.id),
            "preset": clean(study.preset),
            "document": codec.dumps(study.with_trials(())),
        },
    )
    yield "study_states", _study_state_row(keys, at, study.state, study.reason)
    for trial in study.trials:
        yield from _trial_rows(Keys(keys.event_id, keys.study_id, clean(trial.id)), at, trial)


def _study_state(keys: Keys, at: datetime, event: Event) -> Made:
    state, reason = event.body["state"], event.body.get("reason", "")
    yield "study_states", _study_state_row(keys, at, state, reason)


def _study_state_row(keys: Keys, at: datetime, state: str, reason: str) -> Row:
    if state not in STUDY_STATES:
        raise ValueError(f"the study state {state!r} is unknown")
    return keys.of_study() | {"happened_at": at, "state": state, "reason": clean(reason)}


def _trial_queued(keys: Keys, at: datetime, event: Event) -> Made:
    trial = _decoded(clean_data(event.body["trial"]), Trial)
    if trial.id != keys.trial_id:
        raise ValueError(f"it holds the trial {trial.id!r}")
    yield from _trial_rows(keys, at, trial)


def _trial_rows(keys: Keys, at: datetime, trial: Trial) -> Made:
    plan, attempt = trial.plan, trial.attempt
    names = {
        "model_id": clean(plan.case.model.id),
        "target_id": clean(plan.case.target.id),
        "workload_id": clean(plan.case.workload.id),
    }
    title = clean(plan.title)
    searchable = "\n".join((keys.trial_id, keys.study_id, title, *names.values()))
    yield (
        "trials",
        keys.of_trial()
        | names
        | {
            "happened_at": at,
            "title": title,
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
    yield (
        "trial_states",
        _state_row(keys, at, attempt, step, trial.state, clean(trial.reason), **times),
    )
    for position, measurement in enumerate(trial.measurements):
        yield "measurements", _measurement_row(keys, position, attempt, measurement)
    yield from _kernel_rows(keys, attempt, trial.kernels)
    for position, note in enumerate(trial.notes):
        yield "notes", keys.of_part(position, attempt) | {"text": clean(note)}


def _trial_started(keys: Keys, at: datetime, event: Event) -> Made:
    pid = event.body.get("pid")
    times = {"started_at": clean_time(event.at), "pid": None if pid is None else whole(pid)}
    attempt = event.body["attempt"]
    yield "trial_states", _state_row(keys, at, attempt, STARTED, "running", "", **times)


def _trial_ended(keys: Keys, at: datetime, event: Event) -> Made:
    attempt, state, reason = (
        event.body["attempt"],
        event.body["state"],
        event.body.get("reason", ""),
    )
    if state not in ENDED:
        raise ValueError(f"a trial does not end in the state {state!r}")
    row = _state_row(
        keys, at, attempt, FINISHED, state, clean(reason), ended_at=clean_time(event.at)
    )
    yield "trial_states", row


def _state_row(
    keys: Keys, at: datetime, attempt: Any, step: int, state: str, reason: str, **times: Any
) -> Row:
    row = keys.of_trial() | {"attempt": whole(attempt), "step": step, "happened_at": at}
    row |= {"state": state, "reason": reason, "started_at": "", "ended_at": "", "pid": None}
    return row | times


def _progress(keys: Keys, at: datetime, event: Event) -> Made:
    body = event.body
    row = keys.of_trial() | {"attempt": whole(body["attempt"]), "happened_at": at}
    yield "progress", row | {"stage": clean(body["stage"]), "share": finite(body["share"])}


def _environment(keys: Keys, at: datetime, event: Event) -> Made:
    facts = event.body["facts"]
    if not isinstance(facts, dict):
        raise TypeError("the facts of an environment are an object")
    yield (
        "environments",
        {
            "event_id": keys.event_id,
            "environment_id": clean(event.body["environment"]),
            "happened_at": at,
            "facts": json.dumps(clean_data(facts), allow_nan=False),
        },
    )


def _measurement(keys: Keys, _at: datetime, event: Event) -> Made:
    measurement = _decoded(event.body["measurement"], Measurement)
    yield "measurements", _measurement_row(keys, 0, event.body["attempt"], measurement)


def _measurement_row(keys: Keys, position: int, attempt: Any, measurement: Measurement) -> Row:
    value, pooled, bounds = _value(measurement), measurement.pooled, measurement.bounds
    return {
        **keys.of_part(position, attempt),
        "metric": clean(measurement.metric),
        "unit": clean(measurement.unit),
        "origin": measurement.origin,
        "method": clean(measurement.method),
        "environment_id": clean(measurement.environment),
        "taken_at": clean_time(measurement.taken_at),
        "value": None if value is None else finite(value),
        "pooled": None if pooled is None else finite(pooled),
        "low": None if bounds is None else finite(bounds[0]),
        "high": None if bounds is None else finite(bounds[1]),
        "n": measurement.n,
        "samples": _numbers(measurement.samples),
        "condition": clean(measurement.condition),
        "reference": _numbers(measurement.reference),
    }


def _value(measurement: Measurement) -> float | None:
    """Measurement.value, twenty times as fast where it is the median of floats."""
    samples = measurement.samples
    if measurement.pooled is not None or not samples or not _are_floats(samples):
        return measurement.value
    ordered, middle = sorted(samples), len(samples) // 2
    return ordered[middle] if len(samples) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _numbers(samples: tuple[float, ...]) -> str:
    """Finite numbers as JSON; of floats, JSON's form is Python's own, and that is made faster."""
    if not samples:
        return "[]"
    if _are_floats(samples):
        return repr(list(samples))
    return json.dumps(samples, allow_nan=False)


def _are_floats(samples: tuple[float, ...]) -> bool:
    return _FLOAT.issuperset(map(type, samples))


def _kernels(keys: Keys, _at: datetime, event: Event) -> Made:
    kernels = tuple(_decoded(item, KernelCalls) for item in event.body["kernels"])
    yield from _kernel_rows(keys, event.body["attempt"], kernels)


def _kernel_rows(keys: Keys, attempt: Any, kernels: tuple[KernelCalls, ...]) -> Made:
    for position, kernel in enumerate(kernels):
        row = {
            "op": clean(kernel.op),
            "name": clean(kernel.name),
            "calls": whole(kernel.calls, 63),
        }
        yield "kernel_calls", keys.of_part(position, attempt) | row


def _report_saved(_keys: Keys, _at: datetime, event: Event) -> Made:
    yield "reports", report_row(_decoded(event.body["report"], Report))


def _note(keys: Keys, _at: datetime, event: Event) -> Made:
    yield "notes", keys.of_part(0, event.body["attempt"]) | {"text": clean(line_of(event.body))}


_MAKERS = {
    "study-created": _study_created,
    "study-state": _study_state,
    "trial-queued": _trial_queued,
    "trial-started": _trial_started,
    "progress": _progress,
    "environment": _environment,
    "measurement": _measurement,
    "kernels": _kernels,
    "note": _note,
    "trial-ended": _trial_ended,
    "report-saved": _report_saved,
}


def _decoded(data: Any, kind: type) -> Any:
    found = codec.from_data(data)
    if not isinstance(found, kind):
        raise TypeError(f"it holds no {kind.__name__}")
    return found


def _damage(event: Event, error: Exception) -> str:
    nothing = "nothing of its batch was stored"
    if not isinstance(event.id, str) or event.kind not in KINDS:
        return f"an event of the unknown kind {event.kind!r} cannot be kept; {nothing}"
    what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
    where = f"{event.kind}, study {event.study_id}, trial {event.trial_id}"
    return f"event {event.id} ({where}) is damaged and cannot be kept: {what}; {nothing}"
