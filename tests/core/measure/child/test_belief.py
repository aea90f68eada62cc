"""Judging events, whatever a broken process writes, and the words for how attempts ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.journal.events import Event, MeasurementTaken, event
from core.journal.lines import from_line, to_line
from core.measure.child.attempt import sentence
from core.measure.child.belief import NOTE, refusal
from core.measure.child.runner import summary
from core.measurement import Measurement

ABOUT = ("s-0000000000000a", "t-0000000000000a", 2)
NUMBER = Measurement("tokens_per_s", (10.0,), "1/s", "measured", "made up")


def good(**changes: Any) -> Event:
    data = json.loads(to_line(MeasurementTaken(ABOUT[2], NUMBER).event(*ABOUT[:2])))
    data["body"] |= changes.pop("body", {})
    return from_line(json.dumps(data | changes))


def test_an_event_of_this_attempt_is_believed() -> None:
    assert refusal(good(), *ABOUT) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trial": "t-0000000000000b"}, "another trial"),
        ({"study": "s-0000000000000b"}, "another trial"),
        ({"body": {"attempt": 1}}, "another attempt"),
        ({"body": {"attempt": True}}, "another attempt"),
        ({"id": "e-zzzzzzzzzzzzzz"}, "forged id"),
        ({"id": "e-1'; drop table"}, "forged id"),
        ({"at": "yesterday"}, "damaged"),
        ({"body": {"measurement": {"type": "Plan"}}}, "damaged"),
        ({"body": {"measurement": None}}, "damaged"),
        ({"kind": "study-state"}, "not its to send"),
        ({"kind": "study-created"}, "not its to send"),
        ({"kind": "trial-ended", "body": {"state": "cancelled"}}, "no trial can declare"),
        ({"kind": "trial-ended", "body": {"state": ["done"]}}, "damaged"),
        ({"kind": "note", "body": {"text": "x" * (NOTE + 1)}}, "a note of more than"),
    ],
)
def test_what_is_not_believed_is_named(changes: dict[str, Any], words: str) -> None:
    found = refusal(good(**changes), *ABOUT)
    assert found is not None
    assert words in found


def test_a_process_speaks_in_the_name_of_whom_it_runs_for() -> None:
    assert refusal(good(who="Ada"), *ABOUT, "Ada") is None
    assert refusal(good(who="Ada"), *ABOUT) is None
    assert refusal(good(who="Eve"), *ABOUT, "Ada") == "an event in another name"


def test_events_made_by_the_worker_are_believed() -> None:
    study_id, trial_id, attempt = ABOUT
    for kind, body in (
        ("trial-started", {"pid": 1}),
        ("progress", {"stage": "load", "share": 0.5}),
        ("note", {"text": "said"}),
        ("trial-ended", {"state": "done", "reason": ""}),
    ):
        assert refusal(event(kind, study_id, trial_id, attempt=attempt, **body), *ABOUT) is None
    facts = event("environment", study_id, trial_id, environment="e", facts={"cpu": "x"})
    assert refusal(facts, *ABOUT) is None


def test_a_reason_is_one_printable_line() -> None:
    assert sentence("a\n\tb\x1b[2J\0c") == "a b [2J c"
    assert len(sentence("x" * 10**6)) == 600


def test_all_attempts_are_named_in_the_reason() -> None:
    assert summary(["a"]) == "a"
    assert summary(["a", "a", "a"]) == "a (3 attempts, each ended so)"
    assert summary(["a", "b"]) == "2 attempts failed; attempt 1: a; attempt 2: b"
