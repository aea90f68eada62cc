"""What every store must do, in memory or on disk."""

from __future__ import annotations

import dataclasses
import random
from datetime import datetime, timedelta

import pytest

from core.journal import codec, events
from core.report import Report
from core.study import KernelCalls
from store import TrialFilter


def test_a_study_comes_back_as_it_went_in(store, make):
    study, told = make.whole()

    assert store.ingest(told) == len(told)

    ran = {event.trial_id: event.at for event in told if event.kind == "trial-started"}
    ended = {event.trial_id: event.at for event in told if event.kind == "trial-ended"}
    expected = dataclasses.replace(
        study,
        state="done",
        reason="all trials ended",
        trials=tuple(
            dataclasses.replace(
                trial,
                state="done",
                attempt=1,
                started_at=ran[trial.id],
                ended_at=ended[trial.id],
                measurements=make.measurements(),
                kernels=(KernelCalls("gemm", "w4", 12), KernelCalls("norm", "rms", 2**40)),
                notes=("attempt 1",),
            )
            for trial in study.trials
        ),
    )
    found = store.study("s-1")
    assert found == expected
    assert codec.dumps(found) == codec.dumps(expected)
    assert [store.trial(trial.id) for trial in expected.trials] == list(expected.trials)


def test_a_trial_queued_with_everything_it_has_keeps_it(store, make):
    study = make.study()
    refused = dataclasses.replace(
        make.trial(study, "t-1", "weight-int8"),
        state="refused",
        reason="no such kernel",
        started_at="2026-11-21T10:00:01.000",
        ended_at="2026-11-21T10:00:02.000",
        measurements=make.measurements(),
        kernels=(KernelCalls("gemm", "w8", 1),),
        notes=("one", "two"),
    )

    store.ingest([events.study_created(study), events.trial_queued(refused)])

    assert store.trial("t-1") == refused


def test_reading_a_journal_twice_changes_nothing(store, make):
    _, told = make.whole()
    assert store.ingest(told[:9]) == 9
    assert store.ingest(told) == len(told) - 9
    before = store.study("s-1")

    assert store.ingest(told) == 0
    assert store.ingest(reversed(told)) == 0

    assert store.study("s-1") == before
    assert store.count_trials(TrialFilter()) == 3


def test_an_event_twice_in_one_batch_counts_once(store, make):
    _, told = make.whole()

    assert store.ingest([*told, *told, *reversed(told)]) == len(told)

    assert store.trial("s-1-t0").measurements == make.measurements()
    assert store.ingest([]) == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_arrival_does_not_matter(store, make, seed):
    _, told = make.whole()
    _, other = make.whole("s-2")
    mixed = told + other
    random.Random(seed).shuffle(mixed)

    for start in range(0, len(mixed), 7):
        store.ingest(mixed[start : start + 7])

    found = store.study("s-1")
    assert [trial.id for trial in found.trials] == ["s-1-t0", "s-1-t1", "s-1-t2"]
    assert all(trial.measurements == make.measurements() for trial in found.trials)
    assert (found.state, found.reason) == ("done", "all trials ended")
    assert [row["position"] for row in store.trial_rows(TrialFilter(study_id="s-2"))] == [2, 1, 0]


def test_only_the_latest_attempt_shows_though_events_of_both_interleave(store, make):
    study = make.study()
    trial = make.trial(study, "t-1", "weight-int8")
    first = make.story(study, trial, 1)[:-1]
    second = make.story(study, trial, 2, "failed")
    mixed = [one for pair in zip(second, [*first, first[0]], strict=True) for one in pair]

    store.ingest([events.study_created(study), events.trial_queued(trial), *mixed])

    found = store.trial("t-1")
    assert (found.attempt, found.state, found.notes) == (2, "failed", ("attempt 2",))
    assert found.measurements == make.measurements()
    assert found.started_at == second[0].at
    (row,) = store.trial_rows(TrialFilter())
    assert (row["state"], row["tpot_s"]) == ("failed", 0.5)
    assert row["origins"] == {one.metric: one.origin for one in make.measurements()}


def test_a_trial_stands_where_its_latest_event_says(store, make):
    study = make.study()
    trial = make.trial(study, "t-1")
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    assert store.trial("t-1").state == "queued"

    steps = (
        ("trial-ended", {"attempt": 0, "state": "cancelled", "reason": "stopped"}, "cancelled"),
        ("trial-started", {"attempt": 1, "pid": 5}, "running"),
        ("trial-ended", {"attempt": 1, "state": "failed", "reason": "killed"}, "failed"),
        ("trial-started", {"attempt": 2, "pid": 6}, "running"),
        ("trial-ended", {"attempt": 2, "state": "done", "reason": ""}, "done"),
    )
    for kind, body, state in steps:
        store.ingest([events.event(kind, "s-1", "t-1", **body)])
        found = store.trial("t-1")
        assert (found.state, found.attempt) == (state, body["attempt"])
        assert found.reason == body.get("reason", "")
        assert bool(found.ended_at) == (state != "running")


def test_measurements_of_an_attempt_that_has_not_started_wait(store, make):
    study = make.study()
    trial = make.trial(study, "t-1")
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    store.ingest([events.MeasurementTaken(1, make.measurement()).event("s-1", "t-1")])
    assert store.trial("t-1").measurements == ()

    store.ingest([events.event("trial-started", "s-1", "t-1", attempt=1)])

    assert store.trial("t-1").measurements == (make.measurement(),)


def test_trials_and_studies_show_once_they_are_there_themselves(store, make):
    study, told = make.whole()
    created, queued, rest = told[0], told[1:4], told[4:]

    store.ingest(rest)
    assert (store.study("s-1"), store.trial("s-1-t0"), store.studies()) == (None, None, ())
    assert store.trial_rows(TrialFilter()) == ()
    store.ingest(queued)
    assert store.trial("s-1-t0").state == "done"
    assert store.study("s-1") is None
    store.ingest([created])
    assert len(store.study("s-1").trials) == len(study.trials)


def _elsewhere(text: str) -> str:
    """A time of ours as a clock five and three quarter hours ahead shows it."""
    there = datetime.fromisoformat(text) + timedelta(hours=5, minutes=45)
    return there.isoformat(timespec="microseconds") + "+05:45"


def test_times_with_an_offset_are_kept_in_utc(store, make):
    study, told = make.whole()
    there = [dataclasses.replace(event, at=_elsewhere(event.at)) for event in told]
    created = codec.to_data(dataclasses.replace(study, created_at=_elsewhere(study.created_at)))
    there[0] = dataclasses.replace(there[0], body=there[0].body | {"study": created})
    store.ingest(there)

    found = store.study("s-1")
    started = {event.trial_id: event.at for event in told if event.kind == "trial-started"}
    ended = {event.trial_id: event.at for event in told if event.kind == "trial-ended"}
    assert found.created_at == store.studies()[0].created_at == study.created_at
    assert {trial.id: trial.started_at for trial in found.trials} == started
    assert {trial.id: trial.ended_at for trial in found.trials} == ended


def test_reports_are_sorted_by_moments_not_by_words(store, make):
    study = make.study()
    for number, at in enumerate(["2026-11-21T09:30:00.000", "2026-11-21T12:00:00.000+04:00"]):
        store.save_report(Report(f"r-{number}", 1, "Choice", study, (), "", at))
    assert [(one.id, one.created_at) for one in store.reports()] == [
        ("r-0", "2026-11-21T09:30:00.000"),
        ("r-1", "2026-11-21T08:00:00.000"),
    ]


def test_who_asked_is_kept_of_studies_attempts_and_reports(store, make):
    study = make.study(who="Ada")
    first, second = make.trial(study, "t-1"), make.trial(study, "t-2", "weight-int8")
    ids = study.id, first.id
    store.ingest(
        [
            events.study_created(study),
            events.trial_queued(first, "Ada"),
            events.trial_queued(second, "Ada"),
            events.TrialStarted(1, 7).event(*ids, "Ada"),
            events.TrialEnded(1, "failed", "broken").event(*ids, "Ada"),
            events.TrialStarted(2, 8).event(*ids, "Grace"),
            events.TrialEnded(2, "done").event(*ids, "Grace"),
        ]
    )

    found = store.study(study.id)
    assert found.who == "Ada"
    assert [trial.who for trial in found.trials] == ["Grace", "Ada"]
    assert store.trial("t-1") == found.trials[0]
    assert [summary.who for summary in store.studies()] == ["Ada"]

    store.save_report(Report("r-1", 1, "One", found, ("t-1",), "t-1", "2026-11-21", who="Zoë"))
    assert store.report("r-1").who == "Zoë"


def test_nobody_is_known_of_events_without_an_author(store, make):
    study = make.study()
    store.ingest([events.study_created(study), events.trial_queued(make.trial(study, "t-1"))])

    assert store.study(study.id).who == store.trial("t-1").who == store.studies()[0].who == ""
