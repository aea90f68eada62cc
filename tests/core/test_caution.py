"""Cautions: one line of the log holds kind and sentence, whoever wrote it."""

from __future__ import annotations

import pytest

from core.caution import KINDS, Caution, note_body, read_line
from core.errors import BadInput
from core.journal.events import Event, NoteWritten


@pytest.mark.parametrize("kind", KINDS)
def test_a_caution_is_read_back_from_its_line(kind: str) -> None:
    caution = Caution(kind, "other processes took 1.20 of 2 cores: a build")
    assert read_line(caution.line) == caution


@pytest.mark.parametrize("line", ["caution", "cautionary: tale", "x: y", "caution load:", ""])
def test_other_lines_are_no_cautions(line: str) -> None:
    assert read_line(line) is None


def test_an_event_carries_kind_and_sentence_apart_and_older_ones_the_line() -> None:
    caution = Caution("load", "others were busy")
    body = note_body(caution)
    assert body == {"text": "others were busy", "caution": "load"}
    assert NoteWritten(1, **body).line == NoteWritten(1, caution.line).line == caution.line
    assert note_body("a line") == {"text": "a line"}
    assert NoteWritten(1, "a line").line == "a line"


def test_a_kind_that_is_no_text_is_refused() -> None:
    note = {"attempt": 1, "text": "x", "caution": {"a": 1}}
    with pytest.raises(BadInput, match="unknown type"):
        Event("e-1", "note", "s-1", "t-1", "", note).content()


def test_a_kind_of_another_version_says_so_much_of_several_trials() -> None:
    assert "disturb" in Caution("gremlins", "x").about.several
    assert not Caution("gremlins", "x").about.disturbs_times
