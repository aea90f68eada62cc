"""A few hundred of the fuzzed inputs; the figure itself is run by figure_fuzz.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def test_no_mutated_input_escapes_as_anything_but_a_sentence() -> None:
    import figure_fuzz

    ended, wrong = figure_fuzz.run(400, seed=11)
    assert wrong == {}
    assert sum(ended.values()) == 400


def test_every_reader_takes_some_inputs_and_refuses_others() -> None:
    import figure_fuzz

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
        ended, _ = figure_fuzz.run(40, seed=5, only=name)
        assert 0 < ended[f"{name} taken"] < 40, name
