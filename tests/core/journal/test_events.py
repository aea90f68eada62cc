"""Events: one line each, read back equal, a cut-off line named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from core.journal import codec, events
from core.journal.events import Event, event, from_line, to_line
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
    Event, st.text(), st.sampled_from(events.KINDS), st.text(), st.text(), st.text(), BODIES
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
        {"body": []},
        {"body": "text"},
    ],
)
def test_a_line_with_a_wrong_part_is_bad_input(change: dict[str, object]) -> None:
    data = json.loads(to_line(event("note", "s-1", text="x")))
    with pytest.raises(BadInput, match="journal line"):
        from_line(json.dumps(data | change))


@pytest.mark.parametrize("line", ["", "null", "[]", "3", '"text"', "{}", "[" * 100_000])
def test_a_line_that_is_no_event_is_bad_input(line: str) -> None:
    with pytest.raises(BadInput, match="cut off or damaged"):
        from_line(line)


def test_the_sentence_names_an_unknown_kind() -> None:
    data = json.loads(to_line(event("note", "s-1"))) | {"kind": "rumour"}
    with pytest.raises(BadInput, match="unknown kind 'rumour'"):
        from_line(json.dumps(data))


def test_dataclasses_travel_inside_an_event() -> None:
    sent = Measurement("ttft_s", (0.1, 0.2, 0.3), "s", "measured", "how", "env-1")
    got = from_line(to_line(events.measured("s-1", "t-1", 2, sent)))
    assert codec.from_data(got.body["measurement"]) == sent
    assert got.body["attempt"] == 2
    ran = (KernelCalls("linear_w8", "torch", 12), KernelCalls("rms_norm", "cpu", 3))
    got = from_line(to_line(events.kernels_ran("s-1", "t-1", 1, ran)))
    assert codec.from_data(got.body["kernels"]) == ran


def test_an_event_of_an_unknown_kind_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="unknown event kind 'rumour'"):
        event("rumour", "s-1")


def test_a_number_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_line(event("note", "s-1", text=float("inf")))
