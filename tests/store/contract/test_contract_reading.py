"""What every store answers: lists, filters, pages, reports, environments."""

from __future__ import annotations

import dataclasses

import pytest

from core.condition import read as read_condition
from core.errors import StoreError
from core.journal import events
from core.journal.events import Event
from core.report import Report
from store import StudySummary, TrialFilter, TrialProgress


def test_what_is_not_there_is_none(store):
    assert store.study("nobody") is None
    assert store.trial("nobody") is None
    assert store.environment("nobody") is None
    assert store.report("nobody") is None
    assert store.reports() == ()
    assert store.studies() == ()
    assert store.progress("nobody") == ()
    assert store.trial_rows(TrialFilter()) == ()
    assert store.count_trials(TrialFilter(study_id="nobody")) == 0


def test_studies_are_listed_newest_first_with_their_counts(store, make):
    for study_id in ("s-1", "s-2"):
        store.ingest(make.whole(study_id)[1])
    empty = make.study("s-3", preset="deep")
    store.ingest([events.study_created(empty)])
    store.ingest(make.story(make.study("s-2"), make.trial(empty, "s-2-t1"), 2, "failed"))

    assert [one.id for one in store.studies()] == ["s-3", "s-2", "s-1"]
    assert [one.id for one in store.studies(limit=2)] == ["s-3", "s-2"]
    assert store.studies(limit=0) == ()
    at = "2026-11-21T10:00:00.000"
    assert store.studies()[0] == StudySummary(
        "s-3", "pycode", "local", "chat", "deep", at, "queued", "", 0, 0, 0
    )
    assert store.studies()[1] == StudySummary(
        "s-2", "pycode", "local", "chat", "quick", at, "done", "all trials ended", 3, 3, 1
    )


def test_a_row_shows_every_metric_or_none(store, make):
    _, told = make.whole()
    store.ingest(told)

    rows = store.trial_rows(TrialFilter())

    assert [row["id"] for row in rows] == ["s-1-t2", "s-1-t1", "s-1-t0"]
    row = rows[1]
    assert (row["study_id"], row["position"], row["title"]) == ("s-1", 1, "weight-int8")
    assert (row["model_id"], row["target_id"], row["workload_id"]) == ("pycode", "local", "chat")
    assert (row["state"], row["reason"]) == ("done", "")
    assert row["techniques"] == ("weight-int8",)
    assert rows[0]["techniques"] == ("prune-mlp", "weight-int4", "static-batch")
    assert rows[2]["techniques"] == ()
    assert row["created_at"] == next(one.at for one in told if one.trial_id == "s-1-t1")
    assert (row["ttft_s"], row["kl_nats"], row["model_bytes"]) == (0.25, 0.0125, 1e6)
    assert row["energy_j_per_token"] is None
    assert row["accuracy"] is None


def test_a_measured_name_never_hides_a_column(store, make):
    study = make.study()
    trial = make.trial(study, "t-1")
    names = ("id", "state", "my_own_metric")
    measurements = tuple(make.measurement(name) for name in names)
    queued = events.trial_queued(dataclasses.replace(trial, measurements=measurements))
    store.ingest([events.study_created(study), queued])

    (row,) = store.trial_rows(TrialFilter())

    assert (row["id"], row["state"], row["my_own_metric"]) == ("t-1", "queued", 0.25)


def test_of_two_measurements_of_a_metric_the_first_shows_as_in_the_trial(store, make):
    study = make.study()
    trial = make.trial(study, "t-1")
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    store.ingest([events.event("trial-started", "s-1", "t-1", attempt=1)])
    for value in (3.0, 1.0, 2.0):
        store.ingest(
            [events.MeasurementTaken(1, make.measurement("tpot_s", value)).event("s-1", "t-1")]
        )

    (row,) = store.trial_rows(TrialFilter())
    assert row["tpot_s"] == store.trial("t-1").value("tpot_s") == 3.0
    assert [one.value for one in store.trial("t-1").measurements] == [3.0, 1.0, 2.0]


def test_a_measurement_under_a_condition_is_kept_beside_the_table(store, make):
    study = make.study()
    trial = make.trial(study, "t-1")
    varied = make.measurement(
        "ttft_s", 9.0, condition=read_condition("prompt_tokens=256"), reference=(8.0,)
    )
    only = make.measurement("tpot_s", 5.0, condition=read_condition("rate=4/s"))
    plain = make.measurement("ttft_s", 1.0)
    own = make.measurement("my_own_metric", 4.0, condition=read_condition("rate=4/s"))
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    store.ingest([events.event("trial-started", "s-1", "t-1", attempt=1)])
    taken = (varied, only, plain, own)
    store.ingest([events.MeasurementTaken(1, one).event("s-1", "t-1") for one in taken])

    (row,) = store.trial_rows(TrialFilter())

    assert (row["ttft_s"], row["tpot_s"]) == (1.0, None)
    assert "my_own_metric" not in row
    for found in (store.trial("t-1"), store.study("s-1").trials[0]):
        assert found.measurements == taken
        assert found.metric("ttft_s") == plain
        assert found.metric("tpot_s") is None
        assert found.curve("ttft_s") == (varied,)
        assert found.metric("ttft_s").reference == ()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (TrialFilter(), ["b-t1", "b-t0", "a-t1", "a-t0"]),
        (TrialFilter(study_id="a"), ["a-t1", "a-t0"]),
        (TrialFilter(model_id="100%_ÄRGER"), ["b-t1", "b-t0"]),
        (TrialFilter(target_id="local"), ["b-t1", "b-t0", "a-t1", "a-t0"]),
        (TrialFilter(target_id="moon"), []),
        (TrialFilter(states=("queued", "failed")), ["b-t1", "b-t0", "a-t0"]),
        (TrialFilter(states=("running",)), ["a-t1"]),
        (TrialFilter(states=("nonsense",)), []),
        (TrialFilter(technique="weight-int8"), ["b-t1", "a-t1"]),
        (TrialFilter(technique="weight-int"), []),
        (TrialFilter(technique="%"), []),
        (TrialFilter(text="BASELINE"), ["b-t0", "a-t0"]),
        (TrialFilter(text="ärger"), ["b-t1", "b-t0"]),
        (TrialFilter(text="100%_Ä"), ["b-t1", "b-t0"]),
        (TrialFilter(text="%_%"), []),
        (TrialFilter(text="' or 1=1 --"), []),
        (TrialFilter(text="\\"), []),
        (TrialFilter(text="a-t1"), ["a-t1"]),
        (TrialFilter(study_id="a", technique="weight-int8", states=("running",)), ["a-t1"]),
    ],
)
def test_filters_find_what_they_name_and_count_the_same(store, make, wanted, found):
    for study_id, model in (("a", "pycode"), ("b", "100%_ÄRGER")):
        study = make.study(study_id, case=make.case(model))
        store.ingest([events.study_created(study)])
        for place, words in enumerate(((), ("weight-int8",))):
            store.ingest([events.trial_queued(make.trial(study, f"{study_id}-t{place}", *words))])
    store.ingest([events.event("trial-started", "a", "a-t1", attempt=1)])

    assert [row["id"] for row in store.trial_rows(wanted)] == found
    assert store.count_trials(wanted) == len(found)


def test_pages_are_cut_without_gaps(store, make):
    study = make.study()
    trials = [events.trial_queued(make.trial(study, f"t-{place:02}")) for place in range(11)]
    store.ingest([events.study_created(study), *trials])
    whole = [row["id"] for row in store.trial_rows(TrialFilter())]

    pages = [store.trial_rows(TrialFilter(), limit=4, offset=start) for start in (0, 4, 8, 12)]

    assert [row["id"] for page in pages for row in page] == whole == sorted(whole, reverse=True)
    assert store.trial_rows(TrialFilter(), limit=-1) == ()
    assert len(store.trial_rows(TrialFilter(), offset=-5)) == 11


def test_progress_is_the_newest_of_running_trials_only(store, make):
    study, told = make.whole()
    started = [one for one in told if one.kind != "trial-ended" or one.trial_id == "s-1-t1"]
    store.ingest(started)

    assert [(one.trial_id, one.stage, one.share) for one in store.progress("s-1")] == [
        ("s-1-t0", "measure", 0.75),
        ("s-1-t2", "measure", 0.75),
    ]
    newest = events.event("progress", "s-1", "s-1-t2", attempt=1, stage="quality", share=1)
    store.ingest([newest])
    assert store.progress("s-1")[1] == TrialProgress("s-1-t2", "quality", 1.0, newest.at)
    store.ingest([events.event("trial-started", "s-1", "s-1-t2", attempt=2)])
    assert [one.trial_id for one in store.progress("s-1")] == ["s-1-t0"]
    assert len(study.trials) == 3


def test_an_environment_keeps_its_first_facts(store):
    for facts in ({"cpu": "a", "flags": ["avx2"], "mem": {"bytes": 2**70}}, {"cpu": "b"}):
        store.ingest([events.event("environment", "s", environment="env", facts=facts)])

    assert store.environment("env") == {"cpu": "a", "flags": ["avx2"], "mem": {"bytes": 2**70}}


def test_reports_are_versions_that_never_change(store, make):
    _, told = make.whole()
    store.ingest(told)
    study = store.study("s-1")
    first = Report(
        "r-1", 1, "First", study, ("s-1-t0", "s-1-t1"), "s-1-t0", "2026-11-21T10:00:00.000"
    )
    second = dataclasses.replace(
        first, version=2, title="Second", created_at="2026-11-21T12:00:00.000"
    )
    other = dataclasses.replace(first, id="r-2", created_at="2026-11-21T11:00:00.000")
    for report in (second, other, first):
        store.save_report(report)

    with pytest.raises(
        StoreError, match="report r-1 version 2 is saved already; save it as version 3"
    ):
        store.save_report(dataclasses.replace(second, title="Changed"))

    assert store.reports() == (second, other)
    assert store.report("r-1") == second
    assert store.report("r-1", 1) == first
    assert store.report("r-1", 3) is None
    store.ingest(make.story(study, study.trials[0], attempt=2, state="failed"))
    assert store.report("r-1", 1) == first


def test_a_report_that_cannot_be_written_is_refused_with_a_sentence(store, make):
    _, told = make.whole()
    store.ingest(told)
    report = Report("r-1", -1, "First", store.study("s-1"), (), "", "2026-11-21T10:00:00.000")

    with pytest.raises(StoreError, match="report r-1 cannot be kept: -1 is not a whole number"):
        store.save_report(report)

    assert store.reports() == ()


def test_what_is_handed_out_is_a_copy(store, make):
    _, told = make.whole()
    store.ingest(told)
    store.trial_rows(TrialFilter())[0]["title"] = "changed"
    store.environment("env-1")["cpu"] = "changed"

    assert store.trial_rows(TrialFilter())[0]["title"] != "changed"
    assert store.environment("env-1") == {"cpu": "Xeon", "cores": 2}


def test_environments_are_those_of_the_attempt_that_stands(store, make):
    study = make.study()
    one, two = make.trial(study, "t-1"), make.trial(study, "t-2")
    measured = dataclasses.replace(make.measurements()[0], environment="env-old")
    again = dataclasses.replace(measured, environment="env-b")
    moved = dataclasses.replace(measured, metric="ttft_s", environment="env-a")
    store.ingest(
        [
            events.study_created(study),
            *(events.trial_queued(trial) for trial in (one, two)),
            events.event("trial-started", study.id, "t-1", attempt=1, pid=1),
            events.MeasurementTaken(1, measured).event(study.id, "t-1"),
            events.event("trial-started", study.id, "t-1", attempt=2, pid=2),
            events.MeasurementTaken(2, again).event(study.id, "t-1"),
            events.MeasurementTaken(2, moved).event(study.id, "t-1"),
        ]
    )
    assert store.environments_of(["t-1", "t-2", "t-none"]) == {"t-1": ("env-a", "env-b")}
    assert store.environments_of([]) == {}
    assert store.environments_of_studies(["s-1", "s-none"]) == {
        "s-1": ("env-a", "env-b", "env-old")
    }
    assert store.environments_of_studies([]) == {}


def test_more_than_one_part_is_kept_whole_or_not_at_all(store, make):
    study = make.study()
    trial = make.trial(study, "t-1")
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    many = [
        events.MeasurementTaken(0, make.measurement("ttft_s", float(place))).event("s-1", "t-1")
        for place in range(2500)
    ]
    damaged = Event("e-damaged", "note", "s-1", "t-1", "2026-11-21", {"attempt": 0})

    with pytest.raises(StoreError, match="e-damaged"):
        store.ingest([*many, damaged])
    assert store.trial("t-1").measurements == ()

    assert store.ingest(many) == 2500
    assert [one.samples for one in store.trial("t-1").measurements] == [
        (float(place),) for place in range(2500)
    ]
