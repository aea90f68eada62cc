"""How far journals were read is kept with the events, and reports come back from events; the same
in memory and in a file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from core.errors import StoreError
from core.journal import events
from core.journal.journal import Mark
from core.report import Report

MARK = Mark("s-1", "study.jsonl", 5, "ab" * 16, 2**40, 1_795_271_185_190_474_584)


def test_marks_are_kept_replaced_and_told_apart(store, make):
    assert store.marks() == {}
    assert store.ingest(make.whole("s-1")[1], [MARK]) > 0
    other = replace(MARK, file="t-1-1.jsonl", number=7)
    newer = replace(MARK, number=6, hash="cd" * 16)
    assert store.ingest((), [other, newer]) == 0
    assert store.marks() == {newer.key: newer, other.key: other}
    many = [replace(MARK, study_id=f"s-{number}") for number in range(1200)]
    store.ingest((), many)
    assert len(store.marks()) == 1201


def test_a_batch_that_is_refused_keeps_no_mark(store, make):
    ended = events.TrialEnded(1, "failed").event("s-1", "t-1")
    bad = dataclasses.replace(ended, body=ended.body | {"state": "exploded"})
    with pytest.raises(StoreError, match="does not end in the state"):
        store.ingest([bad], [MARK])
    assert store.marks() == {}


def test_known_events_are_those_that_were_ingested(store, make):
    told = make.whole("s-1")[1]
    store.ingest(told[:5])
    assert store.known([one.id for one in told]) == {one.id for one in told[:5]}
    assert store.known([]) == set()
    store.scan()
    assert store.sound


def test_a_report_comes_back_from_its_event_once_and_the_newest_of_two_counts(store, make):
    study, _ = make.whole("s-1")
    first = Report("r-1", 1, "First", study, (), "", "2026-11-21T10:00:00.000")
    second = replace(first, title="Written again after a failure")
    told = [events.event("report-saved", "s-1", report=one) for one in (first, second)]
    assert store.ingest(told) == 2
    assert store.ingest(told) == 0
    assert [one.title for one in store.reports()] == [second.title]
    store.ingest([events.event("report-saved", "s-1", report=replace(first, title="Late"))])
    assert store.report("r-1") == second
    with pytest.raises(StoreError, match="saved already"):
        store.save_report(first)


def test_a_damaged_report_event_is_named(store):
    with pytest.raises(StoreError, match="report-saved"):
        store.ingest([events.event("report-saved", "s-1", report={"title": "no report"})])
