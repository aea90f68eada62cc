"""Whatever happens to a journal's lines: what is read was written, and what is gone is said."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.journal import chain, events
from core.journal.chain import Checked
from core.journal.events import Event
from core.journal.lines import to_line
from core.measurement import Measurement

NAME = "s-1/t-3-1.jsonl"


def story(count: int = 7) -> list[Event]:
    first = events.event("trial-started", "s-1", "t-3", attempt=1, pid=7)
    taken = [
        events.MeasurementTaken(1, Measurement(f"m{number}_s", (0.5,), "s", "measured", "m")).event(
            "s-1", "t-3"
        )
        for number in range(count - 2)
    ]
    last = events.event("trial-ended", "s-1", "t-3", attempt=1, state="done", reason="")
    return [first, *taken, last]


def sealed(told: list[Event], name: str = NAME) -> list[bytes]:
    link, lines = chain.root(name), []
    for one in told:
        line, link = chain.seal(name, link, to_line(one))
        lines.append(line.encode())
    return lines


TOLD = story()
LINES = sealed(TOLD)
WHOLE = b"\n".join(LINES) + b"\n"


def check(lines: list[bytes]) -> Checked:
    return chain.check(NAME, b"".join(line + b"\n" for line in lines))


def said(checked: Checked) -> list[str]:
    return [one.text for one in checked.damage]


def test_whole_lines_are_proven_and_undamaged() -> None:
    checked = check(LINES)
    assert list(checked.events) == TOLD
    assert said(checked) == []
    assert not checked.torn
    assert checked.last.number == len(TOLD)
    assert checked.last == chain.end(NAME, WHOLE)


def test_every_single_flipped_bit_is_named_and_gives_no_wrong_event() -> None:
    chance = random.Random(4)
    for place in range(len(WHOLE)):
        data = bytearray(WHOLE)
        data[place] ^= 1 << chance.randrange(8)
        checked = chain.check(NAME, bytes(data))
        assert all(one in TOLD for one in checked.events), place
        missing = len(TOLD) - len(checked.events)
        # A flipped last line end leaves the last line unterminated, as a killed writer would.
        assert said(checked) or (checked.torn and place == len(WHOLE) - 1 and missing == 1), place


@pytest.mark.parametrize("place", range(7))
def test_a_changed_line_is_named_with_what_it_said(place: int) -> None:
    lines = list(LINES)
    lines[place] = lines[place].replace(b'"attempt":1', b'"attempt":2')
    checked = check(lines)
    assert list(checked.events) == TOLD[:place] + TOLD[place + 1 :]
    (one,) = checked.damage
    assert one.text.startswith(f"line {place + 1} (")
    assert "was changed or cut: its hash is not that of its words" in one.text
    assert (one.number, one.event_id, one.lost) == (place + 1, TOLD[place].id, True)
    if 0 < place < 6:
        assert f"(measurement m{place - 1}_s of trial t-3)" in one.text


@pytest.mark.parametrize("place", range(6))
def test_a_removed_line_is_missed(place: int) -> None:
    checked = check(LINES[:place] + LINES[place + 1 :])
    assert list(checked.events) == TOLD[:place] + TOLD[place + 1 :]
    (one,) = checked.damage
    where = "before line 1" if place == 0 else f"between lines {place} and {place + 1}"
    assert one.text == f"a line was removed {where}"
    assert one.number == place + 1


def test_the_last_line_cannot_be_missed_by_the_chain_but_changes_its_end() -> None:
    checked = check(LINES[:-1])
    assert said(checked) == []
    assert checked.last.number == len(TOLD) - 1


def test_swapped_and_repeated_lines_are_named_and_lose_nothing() -> None:
    swapped = check([*LINES[:2], LINES[3], LINES[2], *LINES[4:]])
    assert list(swapped.events) == TOLD
    assert said(swapped) == ["line 4 (measurement m1_s of trial t-3) stands in the wrong place"]
    repeated = check([*LINES[:3], LINES[1], *LINES[3:]])
    assert list(repeated.events) == TOLD
    assert said(repeated) == ["line 4 repeats line 2"]
    assert not any(one.lost for one in (*swapped.damage, *repeated.damage))


def test_a_line_of_another_journal_is_not_taken() -> None:
    foreign = sealed(story(), "s-1/t-4-1.jsonl")
    checked = check([*LINES[:3], foreign[3], *LINES[4:]])
    assert list(checked.events) == TOLD[:3] + TOLD[4:]
    assert "line 4 (measurement m2_s of trial t-3) was changed or cut" in said(checked)[0]
    assert check(foreign).events == ()
    assert len(said(check(foreign))) == len(foreign)


def test_lines_that_were_written_again_under_the_same_numbers_are_named() -> None:
    link, other = chain.root(NAME), []
    for one in story():
        line, link = chain.seal(NAME, link, to_line(one))
        other.append(line.encode())
    checked = check([*LINES[:3], *other[3:]])
    assert said(checked) == ["line 4 does not continue line 3: lines were replaced"]


def test_a_last_line_without_an_end_is_torn_and_no_damage() -> None:
    for cut in range(1, len(LINES[-1])):
        checked = chain.check(NAME, b"\n".join(LINES)[:-cut])
        assert checked.torn
        assert said(checked) == []
        assert list(checked.events) == TOLD[:-1]
    whole = chain.check(NAME, b"\n".join(LINES))
    assert (list(whole.events), whole.torn) == (TOLD, False)


def test_a_torn_line_that_the_next_writer_ended_is_no_damage_but_a_cut_one_is() -> None:
    begun = LINES[3][:60]
    assert said(check([*LINES[:3], begun, *LINES[3:]])) == []
    cut = said(check([*LINES[:3], begun, *LINES[4:]]))
    assert len(cut) == 1
    assert cut[0].startswith("line 4 (measurement")


def test_a_writer_goes_on_so_that_a_damaged_last_line_is_still_missed() -> None:
    lines = [*LINES[:-1], LINES[-1].replace(b"done", b"fail")]
    link = chain.end(NAME, b"\n".join(lines) + b"\n")
    assert link.number == len(LINES)
    more, _ = chain.seal(
        NAME, link, to_line(events.event("note", "s-1", "t-3", attempt=1, text="on"))
    )
    checked = check([*lines, more.encode()])
    assert len(said(checked)) == 1
    assert said(checked)[0].startswith("line 7 (trial-ended of trial t-3) was changed or cut")


def test_lines_without_a_chain_may_only_stand_before_it() -> None:
    old = [to_line(one).encode() for one in story(3)]
    checked = check([*old, *LINES])
    assert len(checked.events) == 3 + len(TOLD)
    assert said(checked) == []
    between = check([*LINES[:2], old[0], *LINES[2:]])
    assert list(between.events) == TOLD
    assert "line 3 (trial-started of trial t-3) was changed or cut" in said(between)[0]
    late = check([*LINES, old[0]])
    assert list(late.events) == TOLD
    assert "does not continue the lines before it" in said(late)[0]
    only_old = check(old)
    assert (len(only_old.events), only_old.last.number, said(only_old)) == (3, 0, [])
    assert said(check([old[0], b"{garbage", old[1]]))[0].startswith("line 2 (")
    assert said(check([old[0], b"{garbage", *LINES]))[0].startswith("line 2 (")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_gives_only_true_events_and_is_named(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(("cut", "drop", "copy", "swap", "garbage", "join")))
        if kind == "cut":
            lines[place] = lines[place][: data.draw(st.integers(1, 300))]
        elif kind == "drop":
            del lines[place]
        elif kind == "copy":
            lines.insert(data.draw(st.integers(0, len(lines))), lines[place])
        elif kind == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], lines[place]
        elif kind == "garbage":
            lines[place] = data.draw(st.binary(min_size=1, max_size=60)).replace(b"\n", b"")
        elif place + 1 < len(lines):
            lines[place : place + 2] = [lines[place] + lines[place + 1]]
        if not lines:
            break
    checked = check(lines)
    assert all(one in TOLD for one in checked.events)
    gone = [place for place, one in enumerate(TOLD) if one not in checked.events]
    if gone and min(gone) < checked.last.number:
        assert any(one.lost for one in checked.damage)


# As a version without authors wrote them.
OLDER = b"""\
{"id":"e-0000000000000a","kind":"trial-started","study":"s-1","trial":"t-1",\
"at":"2026-11-21T10:00:00.000","body":{"attempt":1,"pid":7},"n":1,\
"prev":"41d2a1e85e09bbbc6b7d1723f3cc73c1","hash":"893198f4db9eeca718138847ba81c1d3"}
{"id":"e-0000000000000b","kind":"note","study":"s-1","trial":"t-1",\
"at":"2026-11-21T10:00:01.000","body":{"attempt":1,"text":"x"},"n":2,\
"prev":"893198f4db9eeca718138847ba81c1d3","hash":"41db2317e1d032fad8537f453b79067e"}
"""


def test_a_journal_of_before_authors_is_whole_and_goes_on_with_them() -> None:
    name = "s-1/t-1-1.jsonl"
    checked = chain.check(name, OLDER)
    assert (checked.damage, checked.torn, len(checked.events)) == ((), False, 2)
    assert {event.who for event in checked.events} == {""}
    more = events.NoteWritten(1, "y").event("s-1", "t-1", "Ada")
    line, _ = chain.seal(name, checked.last, to_line(more))
    checked = chain.check(name, OLDER + line.encode() + b"\n")
    assert (checked.damage, checked.events[-1]) == ((), more)


def test_an_author_cannot_be_changed_unnoticed() -> None:
    name = "s-1/t-1-1.jsonl"
    note = events.NoteWritten(1, "y").event("s-1", "t-1", "Ada")
    line, _ = chain.seal(name, chain.root(name), to_line(note))
    checked = chain.check(name, line.replace("Ada", "Eve").encode() + b"\n")
    assert checked.events == ()
    assert checked.damage
