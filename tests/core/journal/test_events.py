"""Events: one line each, read back equal, a cut-off line named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from core.journal import codec, events
from core.journal.events import Event, NoteWritten, TrialEnded, event
from core.journal.lines import from_line, to_line
from core.measurement import Measurement
from core.study import KernelCalls

BODIES = st.dictionaries(
    st.text(max_size=6),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ).filter(lambda value: "Infinity" not in json.dumps(value)),
    max_size=4,
)
EVENTS = st.builds(
    Event,
    st.text(),
    st.sampled_from(sorted(events.CONTENTS)),
    st.text(),
    st.text(),
    st.text(),
    BODIES,
    st.text(),
)


@given(EVENTS)
def test_an_event_comes_back_equal_from_its_line(one: Event) -> None:
    line = to_line(one)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert from_line(line) == one


@given(st.data())
def test_a_line_cut_anywhere_is_bad_input(data: st.DataObject) -> None:
    line = to_line(event("note", "s-1", "t-1", attempt=1, text="a line of log"))
    with pytest.raises(BadInput, match="journal line"):
        from_line(line[: data.draw(st.integers(0, len(line) - 1))])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rumour"},
        {"kind": None},
        {"kind": ["note"]},
        {"id": 7},
        {"study": None},
        {"trial": 1.5},
        {"at": []},
        {"who": None},
        {"who": 7},
        {"body": []},
        {"body": "text"},
    ],
)
def test_a_line_with_a_wrong_part_is_bad_input(change: dict[str, object]) -> None:
    data = json.loads(to_line(event("note", "s-1", attempt=1, text="x")))
    with pytest.raises(BadInput, match="journal line"):
        from_line(json.dumps(data | change))


@pytest.mark.parametrize("line", ["", "null", "[]", "3", '"text"', "{}", "[" * 100_000])
def test_a_line_that_is_no_event_is_bad_input(line: str) -> None:
    with pytest.raises(BadInput, match="cut off or damaged"):
        from_line(line)


def test_the_sentence_names_an_unknown_kind() -> None:
    data = json.loads(to_line(event("note", "s-1", attempt=1, text="x"))) | {"kind": "rumour"}
    with pytest.raises(BadInput, match="unknown kind 'rumour'"):
        from_line(json.dumps(data))


def test_dataclasses_travel_inside_an_event() -> None:
    sent = Measurement("ttft_s", (0.1, 0.2, 0.3), "s", "measured", "how", "env-1")
    got = from_line(to_line(events.MeasurementTaken(2, sent).event("s-1", "t-1")))
    assert codec.from_data(got.body["measurement"]) == sent
    assert got.body["attempt"] == 2
    ran = (KernelCalls("linear_w8", "torch", 12), KernelCalls("rms_norm", "cpu", 3))
    got = from_line(to_line(events.KernelsRan(1, ran).event("s-1", "t-1")))
    assert codec.from_data(got.body["kernels"]) == ran


def test_an_event_of_an_unknown_kind_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="unknown event kind 'rumour'"):
        event("rumour", "s-1")


def test_a_number_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_line(event("environment", "s-1", environment="e", facts={"x": float("inf")}))


def test_who_did_it_comes_back_and_an_unknown_author_is_left_out() -> None:
    known = NoteWritten(1, "x").event("s-1", "t-1", "Zoë")
    assert from_line(to_line(known)).who == "Zoë"
    assert '"who"' not in to_line(NoteWritten(1, "x").event("s-1", "t-1"))


def test_a_line_of_before_authors_is_read() -> None:
    line = (
        '{"id":"e-1","kind":"note","study":"s-1","trial":"t-1","at":"2026-11-21T10:00:00.000",'
        '"body":{"attempt":1,"text":"x"}}'
    )
    assert from_line(line).who == ""
    assert to_line(from_line(line)) == line


def test_a_name_is_one_short_line() -> None:
    assert events.named("  Ada\n\x1b[31m Lovelace ") == "Ada [31m Lovelace"
    assert len(events.named("x" * 1000)) == events.WHO_LIMIT


def test_every_kind_says_what_its_class_holds() -> None:
    said = TrialEnded(2, "failed", "it broke").event("s-1", "t-1")
    assert said.body == {"attempt": 2, "state": "failed", "reason": "it broke"}
    assert said.content() == TrialEnded(2, "failed", "it broke")
    assert said.is_a(TrialEnded)
    assert not said.is_a(NoteWritten)
    assert said.attempt == 2
    assert {kind.KIND for kind in events.CONTENTS.values()} == set(events.CONTENTS)


def test_what_a_later_version_adds_to_a_body_is_passed_over() -> None:
    later = Event("e-1", "note", "s", "t", "", {"attempt": 1, "text": "x", "mood": "good"})
    assert later.content() == NoteWritten(1, "x")


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("note", {"attempt": 1}, "stored note is incomplete.*'text'"),
        ("note", {"attempt": "one", "text": "x"}, "stored note is damaged: attempt cannot be"),
        ("study-state", {"state": "exploded"}, "the study state 'exploded' is unknown"),
        ("trial-ended", {"attempt": 1, "state": "running"}, "does not end in the state 'running'"),
        ("environment", {"environment": "e", "facts": [1]}, "facts cannot be"),
    ],
)
def test_a_damaged_body_is_named(kind: str, body: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Event("e-1", kind, "s", "t", "", body).content()
