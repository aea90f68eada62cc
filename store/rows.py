"""Events -> rows: what each event leaves in which table. Pure; knows no database.

Both stores go through here, so that they keep the same things and refuse the same damage.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.data.times import moment
from core.errors import BadInput, StoreError
from core.journal.events import (
    CONTENTS,
    Event,
)
from core.report import Report
from store.event_rows import ROWS, Keys, report_columns
from store.health.clean import clean, clean_data
from store.interface import TableRow, TableRows, TrialFilter

_DAMAGES = (
    BadInput,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def rows_of(events: Iterable[Event]) -> TableRows:
    """The rows of `events` by table name; StoreError names the event that is damaged."""
    rows: TableRows = {}
    for event in events:
        try:
            at = moment(event.at)
            keys = _keys(event)
            content = event.content()
            for table, row in ROWS[type(content)](keys, at, content):
                rows.setdefault(table, []).append(row)
            who = clean(event.who) or None
        except _DAMAGES as error:
            raise StoreError(_damage(event, error)) from None
        row = {
            "id": keys.event_id,
            "kind": event.kind,
            "study_id": keys.study_id,
            "trial_id": keys.trial_id,
            "happened_at": at,
            "who": who,
        }
        rows.setdefault("events", []).append(row)
    return rows


def _keys(event: Event) -> Keys:
    ids = clean(event.id), clean(event.study_id), clean(event.trial_id)
    return Keys(*ids, event.at)


def by_id(events: Iterable[Event]) -> dict[str, Event]:
    """Events by the id under which they are kept; of equal ids the first."""
    events_by_id: dict[str, Event] = {}
    for event in events:
        try:
            events_by_id.setdefault(clean(event.id), event)
        except TypeError as error:
            raise StoreError(_damage(event, error)) from None
    return events_by_id


def cleaned(wanted: TrialFilter) -> TrialFilter:
    """A filter whose texts are as the rows have them; the text is case folded."""
    texts = {key: clean_data(value) for key, value in vars(wanted).items()}
    return TrialFilter(**texts | {"text": texts["text"].casefold()})


def report_row(report: Report) -> TableRow:
    """The row of a report version; StoreError when it cannot be kept."""
    try:
        return report_columns(report)
    except _DAMAGES as error:
        raise StoreError(f"report {report.id} cannot be kept: {error}") from None


def _damage(event: Event, error: Exception) -> str:
    nothing = "nothing of its batch was stored"
    if not isinstance(event.id, str) or event.kind not in CONTENTS:
        return f"an event of the unknown kind {event.kind!r} cannot be kept; {nothing}"
    where = f"{event.kind}, study {event.study_id}, trial {event.trial_id}"
    return f"event {event.id} ({where}) is damaged and cannot be kept: {error}; {nothing}"
