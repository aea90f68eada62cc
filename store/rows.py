"""Events -> rows: what each event leaves in which table. Pure; knows no database.

Both stores go through here, so that they keep the same things and refuse the same damage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from core import codec
from core.errors import BadInput, StoreError
from core.events import KINDS, Event
from core.measurement import Measurement
from core.study import ENDED, STUDY_STATES, TRIAL_STATES, KernelCalls, Study, Trial

Row = dict[str, Any]
Rows = dict[str, list[Row]]

QUEUED, STARTED, FINISHED = 0, 1, 2


def rows_of(events: Iterable[Event]) -> Rows:
    """The rows of `events` by table name; StoreError names the event that is damaged."""
    found: Rows = {}
    for event in events:
        try:
            base = _clean(event.id), _clean(event.study_id), _clean(event.trial_id)
            at = moment(event.at)
            body = event.body
            for table, row in _MAKERS[event.kind](base, at, event.at, body):
                found.setdefault(table, []).append(row)
        except (BadInput, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StoreError(_damage(event, error)) from None
        found.setdefault("events", []).append(
            {
                "id": base[0],
                "kind": event.kind,
                "study_id": base[1],
                "trial_id": base[2],
                "happened_at": at,
            }
        )
    return found


def moment(text: str) -> datetime:
    """A naive UTC time from ISO text; ValueError when it is none."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


Base = tuple[str, str, str]
Made = Iterable[tuple[str, Row]]


def _study_created(base: Base, at: datetime, _when: str, body: Row) -> Made:
    study = _decoded(clean_data(body["study"]), Study)
    if study.id != base[1]:
        raise ValueError(f"it holds the study {study.id!r}")
    case = study.case
    yield (
        "studies",
        {
            "event_id": base[0],
            "study_id": base[1],
            "happened_at": at,
            "created_at": _clean(study.created_at),
            "model_id": _clean(case.model.id),
            "target_id": _clean(case.target.id),
            "workload_id": _clean(case.workload.id),
            "preset": _clean(study.preset),
            "document": codec.dumps(study.with_trials(())),
        },
    )
    yield "study_states", _study_state_row(base, at, study.state, study.reason)
    for trial in study.trials:
        yield from _trial_rows((base[0], base[1], _clean(trial.id)), at, trial)


def _study_state(base: Base, at: datetime, _when: str, body: Row) -> Made:
    yield "study_states", _study_state_row(base, at, body["state"], body.get("reason", ""))


def _study_state_row(base: Base, at: datetime, state: str, reason: str) -> Row:
    if state not in STUDY_STATES:
        raise ValueError(f"the study state {state!r} is unknown")
    return {
        "event_id": base[0],
        "study_id": base[1],
        "happened_at": at,
        "state": state,
        "reason": _clean(reason),
    }


def _trial_queued(base: Base, at: datetime, _when: str, body: Row) -> Made:
    trial = _decoded(clean_data(body["trial"]), Trial)
    if trial.id != base[2]:
        raise ValueError(f"it holds the trial {trial.id!r}")
    yield from _trial_rows(base, at, trial)


def _trial_rows(base: Base, at: datetime, trial: Trial) -> Made:
    event_id, study_id, trial_id = base
    plan = trial.plan
    case = plan.case
    title = _clean(plan.title)
    names = [_clean(case.model.id), _clean(case.target.id), _clean(case.workload.id)]
    yield (
        "trials",
        {
            "event_id": event_id,
            "study_id": study_id,
            "trial_id": trial_id,
            "happened_at": at,
            "title": title,
            "model_id": names[0],
            "target_id": names[1],
            "workload_id": names[2],
            "techniques": "".join(f",{technique.name}" for technique in plan.techniques) + ",",
            "searchable": "\n".join((trial_id, study_id, title, *names)).casefold(),
            "plan_key": plan.key,
            "plan": codec.dumps(plan),
        },
    )
    if trial.state not in TRIAL_STATES:
        raise ValueError(f"the trial state {trial.state!r} is unknown")
    attempt = _whole(trial.attempt)
    step = QUEUED if trial.state == "queued" else FINISHED if trial.state in ENDED else STARTED
    yield (
        "trial_states",
        {
            "event_id": event_id,
            "study_id": study_id,
            "trial_id": trial_id,
            "attempt": attempt,
            "step": step,
            "state": trial.state,
            "reason": _clean(trial.reason),
            "started_at": _clean(trial.started_at),
            "ended_at": _clean(trial.ended_at),
            "pid": None,
            "happened_at": at,
        },
    )
    for position, measurement in enumerate(trial.measurements):
        yield "measurements", _measurement_row(base, position, attempt, measurement)
    yield from _kernel_rows(base, attempt, trial.kernels)
    for position, note in enumerate(trial.notes):
        yield "notes", _note_row(base, position, attempt, note)


def _trial_started(base: Base, at: datetime, when: str, body: Row) -> Made:
    pid = body.get("pid")
    yield (
        "trial_states",
        {
            "event_id": base[0],
            "study_id": base[1],
            "trial_id": base[2],
            "attempt": _whole(body["attempt"]),
            "step": STARTED,
            "state": "running",
            "reason": "",
            "started_at": when,
            "ended_at": "",
            "pid": None if pid is None else _whole(pid),
            "happened_at": at,
        },
    )


def _trial_ended(base: Base, at: datetime, when: str, body: Row) -> Made:
    if body["state"] not in ENDED:
        raise ValueError(f"a trial does not end in the state {body['state']!r}")
    yield (
        "trial_states",
        {
            "event_id": base[0],
            "study_id": base[1],
            "trial_id": base[2],
            "attempt": _whole(body["attempt"]),
            "step": FINISHED,
            "state": body["state"],
            "reason": _clean(body.get("reason", "")),
            "started_at": "",
            "ended_at": when,
            "pid": None,
            "happened_at": at,
        },
    )


def _progress(base: Base, at: datetime, _when: str, body: Row) -> Made:
    yield (
        "progress",
        {
            "event_id": base[0],
            "study_id": base[1],
            "trial_id": base[2],
            "attempt": _whole(body["attempt"]),
            "stage": _clean(body["stage"]),
            "share": _finite(body["share"]),
            "happened_at": at,
        },
    )


def _environment(base: Base, at: datetime, _when: str, body: Row) -> Made:
    if not isinstance(body["facts"], dict):
        raise TypeError("the facts of an environment are an object")
    yield (
        "environments",
        {
            "event_id": base[0],
            "environment_id": _clean(body["environment"]),
            "happened_at": at,
            "facts": json.dumps(clean_data(body["facts"]), allow_nan=False),
        },
    )


def _measurement(base: Base, _at: datetime, _when: str, body: Row) -> Made:
    measurement = _decoded(body["measurement"], Measurement)
    yield "measurements", _measurement_row(base, 0, _whole(body["attempt"]), measurement)


def _measurement_row(base: Base, position: int, attempt: int, measurement: Measurement) -> Row:
    value, bounds = measurement.value, measurement.bounds
    return {
        "event_id": base[0],
        "position": position,
        "study_id": base[1],
        "trial_id": base[2],
        "attempt": attempt,
        "metric": _clean(measurement.metric),
        "unit": _clean(measurement.unit),
        "origin": measurement.origin,
        "method": _clean(measurement.method),
        "environment_id": _clean(measurement.environment),
        "taken_at": _clean(measurement.taken_at),
        "value": None if value is None else _finite(value),
        "pooled": measurement.pooled,
        "low": None if bounds is None else _finite(bounds[0]),
        "high": None if bounds is None else _finite(bounds[1]),
        "n": measurement.n,
        "samples": json.dumps(measurement.samples, allow_nan=False),
    }


def _kernels(base: Base, _at: datetime, _when: str, body: Row) -> Made:
    kernels = tuple(_decoded(item, KernelCalls) for item in body["kernels"])
    yield from _kernel_rows(base, _whole(body["attempt"]), kernels)


def _kernel_rows(base: Base, attempt: int, kernels: tuple[KernelCalls, ...]) -> Made:
    for position, kernel in enumerate(kernels):
        yield (
            "kernel_calls",
            {
                "event_id": base[0],
                "position": position,
                "study_id": base[1],
                "trial_id": base[2],
                "attempt": attempt,
                "op": _clean(kernel.op),
                "name": _clean(kernel.name),
                "calls": _whole(kernel.calls, 63),
            },
        )


def _note(base: Base, _at: datetime, _when: str, body: Row) -> Made:
    yield "notes", _note_row(base, 0, _whole(body["attempt"]), body["text"])


def _note_row(base: Base, position: int, attempt: int, text: str) -> Row:
    return {
        "event_id": base[0],
        "position": position,
        "study_id": base[1],
        "trial_id": base[2],
        "attempt": attempt,
        "text": _clean(text),
    }


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
}


def _decoded(data: Any, kind: type) -> Any:
    found = codec.from_data(data)
    if not isinstance(found, kind):
        raise TypeError(f"it holds no {kind.__name__}")
    return found


def _whole(value: Any, bits: int = 31) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**bits:
        raise ValueError(f"{value!r} is not a whole number below 2^{bits}")
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _clean(text: Any) -> str:
    """`text` as it is kept: half surrogates, which no UTF-8 file can hold, become U+FFFD."""
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not text")
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_data(data: Any) -> Any:
    """JSON data with every text cleaned."""
    if isinstance(data, str):
        return _clean(data)
    if isinstance(data, dict):
        return {_clean(key): clean_data(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [clean_data(item) for item in data]
    return data


def _damage(event: Event, error: Exception) -> str:
    if not isinstance(event.id, str) or event.kind not in KINDS:
        return f"an event of the unknown kind {event.kind!r} cannot be kept; nothing of its batch was stored"
    what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
    return (
        f"event {event.id} ({event.kind}, study {event.study_id}, trial {event.trial_id}) is damaged and cannot be kept: "
        f"{what}; nothing of its batch was stored"
    )
