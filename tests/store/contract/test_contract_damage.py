"""What every store does with damaged events and hostile text."""

from __future__ import annotations

import pytest

from core.condition import read as read_condition
from core.errors import StoreError
from core.journal import events
from core.journal.events import Event
from core.report import Report
from core.study import KernelCalls
from store import TrialFilter

HOSTILE = (
    "",
    "'; drop table events; --",
    "\"quotes\" 'and' \\ $1 ? :name {brace} %s",
    "Grüße, 世界, 🧪, \u202eright to left",
    "line\nbreak\ttab\r\x1b[31m",
    "<script>alert(1)</script>",
    "long " * 200_000,
)


DAMAGED = (
    ("study-created", "", {"study": {"type": "Study"}}),
    ("study-created", "", {"study": {"type": "Martian"}}),
    ("study-created", "", {}),
    ("study-state", "", {"state": "exploded"}),
    ("study-state", "", {"state": "done", "reason": None}),
    ("trial-queued", "t-9", {"trial": []}),
    ("trial-queued", "t-9", {"trial": {"technique": "telepathy"}}),
    ("trial-started", "t-9", {"attempt": "one"}),
    ("trial-started", "t-9", {"attempt": -1}),
    ("trial-started", "t-9", {"attempt": 2**31}),
    ("trial-ended", "t-9", {"attempt": 1, "state": "running"}),
    ("trial-ended", "t-9", {"attempt": 1, "state": ["done"]}),
    ("measurement", "t-9", {"attempt": 1, "measurement": {"type": "Measurement"}}),
    ("measurement", "t-9", {"attempt": 1}),
    ("kernels", "t-9", {"attempt": 1, "kernels": [{"type": "KernelCalls", "op": "a"}]}),
    ("kernels", "t-9", {"attempt": 1, "kernels": 7}),
    ("note", "t-9", {"attempt": 1, "text": 5}),
    ("progress", "t-9", {"attempt": 1, "stage": "load", "share": float("nan")}),
    ("progress", "t-9", {"attempt": 1, "stage": "load", "share": "half"}),
    ("progress", "t-9", {"attempt": 1, "stage": "load", "share": 10**400}),
    ("environment", "t-9", {"environment": "e", "facts": [1]}),
    ("environment", "t-9", {"environment": "e", "facts": {"x": float("inf")}}),
    ("teleport", "t-9", {}),
)


@pytest.mark.parametrize(("kind", "trial_id", "body"), DAMAGED)
def test_a_damaged_event_is_named_and_its_batch_stays_out(store, make, kind, trial_id, body):
    _, told = make.whole()
    damaged = Event("e-damaged", kind, "s-1", trial_id, "2026-11-21T10:00:00.000", body)

    with pytest.raises(StoreError, match=r"e-damaged|unknown kind 'teleport'") as caught:
        store.ingest([*told, damaged])

    assert "\n" not in str(caught.value)
    assert store.study("s-1") is None
    assert store.ingest(told) == len(told)


@pytest.mark.parametrize("at", ["", "yesterday", "2026-13-01T00:00:00.000", 5])
def test_an_event_without_a_time_is_named(store, at):
    with pytest.raises(StoreError, match=r"e-1 .note, study s, trial t. is damaged"):
        store.ingest([Event("e-1", "note", "s", "t", at, {"attempt": 1, "text": "hi"})])


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_comes_back_unharmed(store, make, text):
    study = make.study(case=make.case(title=text), preset=text)
    trial = make.trial(study, f"t{text[:50]}", "weight-int8")
    ids = study.id, trial.id
    measurement = make.measurement(
        "ttft_s", environment=f"env{text}", taken_at=text, condition=read_condition(text)
    )
    store.ingest(
        [
            events.study_created(study),
            events.event("study-state", study.id, state="paused", reason=text),
            events.trial_queued(trial),
            events.event("trial-started", *ids, attempt=1),
            events.event("progress", *ids, attempt=1, stage=text, share=1),
            events.event("environment", *ids, environment=f"env{text}", facts={text: [text, None]}),
            events.MeasurementTaken(1, measurement).event(*ids),
            events.KernelsRan(1, (KernelCalls(text, text, 1),)).event(*ids),
            events.event("note", *ids, attempt=1, text=text),
        ]
    )

    assert store.progress(study.id)[0].stage == text
    store.ingest([events.event("trial-ended", *ids, attempt=1, state="failed", reason=text)])

    found = store.study(study.id)
    (ran,) = found.trials
    assert (found.case, found.preset, found.reason) == (study.case, text, text)
    assert (ran.id, ran.reason, ran.notes) == (trial.id, text, (text,))
    assert (ran.measurements, ran.kernels) == ((measurement,), (KernelCalls(text, text, 1),))
    assert store.environment(f"env{text}") == {text: [text, None]}
    assert store.trial(trial.id) == ran
    assert [row["reason"] for row in store.trial_rows(TrialFilter(text=trial.id))] == [text]
    report = Report(
        "r-1", 1, text, found, (trial.id,), trial.id, "2026-11-21", text, ((text, text),)
    )
    store.save_report(report)
    assert store.report("r-1") == report


def test_a_nul_becomes_a_replacement_mark(store, make):
    study = make.study("s\0", reason="a\0b")
    trial = make.trial(study, "t\0")
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    store.ingest([events.event("note", "s\0", "t\0", attempt=0, text="\0")])
    store.ingest([events.event("environment", "s", environment="e\0", facts={"\0": "\0"})])

    assert (store.study("s\0").id, store.study("s\ufffd").reason) == ("s\ufffd", "a\ufffdb")
    assert store.trial("t\0").notes == ("\ufffd",)
    assert store.environment("e\0") == {"\ufffd": "\ufffd"}
    assert store.count_trials(TrialFilter(text="\0")) == 1


def test_half_a_surrogate_becomes_a_replacement_mark(store, make):
    study = make.study("s-\ud800", reason="\udfff")
    trial = make.trial(study, "t-\ud800")
    store.ingest([events.study_created(study), events.trial_queued(trial)])
    facts = {"\ud800": "\ud83e\uddea"}
    store.ingest([events.event("environment", "s-\ud800", environment="e\ud800", facts=facts)])

    assert store.study("s-\ud800").id == "s-\ufffd"
    assert store.study("s-\ufffd").reason == "\ufffd"
    assert store.trial("t-\ud800").id == "t-\ufffd"
    assert store.environment("e\ud800") == {"\ufffd": "🧪"}
