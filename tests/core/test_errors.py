"""Whatever a sentence quotes, it stays one printable line."""

from __future__ import annotations

import pickle

from core.errors import LONGEST, BadInput, one_line


def test_a_quoted_name_cannot_break_the_line_or_colour_the_terminal() -> None:
    said = str(BadInput("model\n\x1b[31mred\udcff\u202e.safetensors is missing."))
    assert said == "model\\n\\x1b[31mred\\udcff\\u202e.safetensors is missing."
    assert said.isprintable()


def test_letters_of_every_script_stay() -> None:
    assert one_line("größer als 漢字 — «ja»") == "größer als 漢字 — «ja»"


def test_of_a_long_sentence_both_ends_stay() -> None:
    said = one_line("the start " + "x" * 5000 + " the end.")
    assert len(said) == LONGEST
    assert said.startswith("the start ")
    assert said.endswith(" the end.")


def test_an_error_travels_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(BadInput("a\nb")))) == "a\\nb"
