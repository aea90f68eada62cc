"""A few hundred of the fuzzed inputs; the figure itself is run by python -m tests.evidence fuzz."""

from __future__ import annotations

from tests.evidence.files import fuzz


def test_no_mutated_input_escapes_as_anything_but_a_sentence() -> None:
    ended, wrong = fuzz.run(400, seed=11)
    assert wrong == {}
    assert sum(ended.values()) == 400


def test_every_reader_takes_some_inputs_and_refuses_others() -> None:
    readers = (
        "config",
        "header",
        "tokenizer",
        "index",
        "codec",
        "lines",
        "words",
        "quantized",
        "gguf",
    )
    for name in readers:
        ended, _ = fuzz.run(40, seed=5, only=name)
        assert 0 < ended[f"{name} taken"] < 40, name
