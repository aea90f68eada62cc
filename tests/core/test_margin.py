"""Margins: what can be said on the command line, and the three words from paired intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from core.journal import codec
from core.margin import (
    INFERIOR,
    NON_INFERIOR,
    UNDECIDED,
    Margin,
    non_inferiority,
    parse_margin,
    parse_margins,
)
from core.measurement import Measurement, unavailable
from core.metrics import metric
from core.statistics.proportions import tango


def items(both: int, gained: int, lost: int, neither: int, name: str = "accuracy") -> Measurement:
    ours = (1.0,) * (both + gained) + (0.0,) * (lost + neither)
    theirs = (1.0,) * both + (0.0,) * gained + (1.0,) * lost + (0.0,) * neither
    return Measurement(name, ours, "", "measured", "made up", reference=theirs)


def windows(name: str, factor: float, noise: float = 0.001, n: int = 16) -> Measurement:
    random = np.random.default_rng(2)
    base = random.uniform(2.0, 4.0, n)
    ours = base * factor * (1 + random.normal(0, noise, n))
    return Measurement(
        name,
        tuple(ours.tolist()),
        metric(name).unit,
        "measured",
        "made up",
        reference=tuple(base.tolist()),
    )


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("accuracy=0.01", Margin("accuracy", 0.01)),
        (" nats_per_byte = 1% ", Margin("nats_per_byte", 0.01, True)),
        ("perplexity=150%", Margin("perplexity", 1.5, True)),
        ("kl_nats=5e-2", Margin("kl_nats", 0.05)),
        ("task_accuracy=2 %", Margin("task_accuracy", 0.02, True)),
    ],
)
def test_a_margin_is_read_and_written(text: str, margin: Margin) -> None:
    found = parse_margin(text)
    assert found == margin
    assert parse_margin(str(found)) == found
    assert codec.loads(codec.dumps(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not of the form metric=value"),
        ("accuracy", "is not of the form"),
        ("accuracy<=0.01", "is not of the form"),
        ("accuracy=0.01%%", "is not of the form"),
        ("accuracy=nan", "is not of the form"),
        ("accuracy=1e", "'1e' is not a number"),
        ("accuracy=0", "must be finite and above 0"),
        ("accuracy=-0.01", "must be finite and above 0"),
        ("accuracy=1e999", "must be finite and above 0"),
        ("accuracy=1", "accepts any loss"),
        ("accuracy=100%", "accepts any loss"),
        ("kl_nats=1%", "without %"),
        ("flips=1%", "without %"),
        ("tpot_s=0.1", "a margin is for quality"),
        ("beauty=0.1", "unknown metric 'beauty'"),
    ],
)
def test_a_margin_that_is_wrong_gets_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_margin(text)
    assert words in str(caught.value)


def test_a_metric_has_one_margin() -> None:
    assert parse_margins(["accuracy=0.01", "flips=0.05"]) == (
        Margin("accuracy", 0.01),
        Margin("flips", 0.05),
    )
    with pytest.raises(BadInput, match="accuracy twice"):
        parse_margins(["accuracy=0.01", "accuracy=1%"])


@given(st.text(max_size=30))
def test_any_text_is_a_margin_or_bad_input(text: str) -> None:
    try:
        found = parse_margin(text)
    except BadInput:
        return
    assert math.isfinite(found.value)


@pytest.mark.parametrize(
    ("measurement", "margin", "word"),
    [
        (items(400, 5, 6, 40), Margin("accuracy", 0.05), NON_INFERIOR),
        (items(300, 0, 90, 60), Margin("accuracy", 0.05), INFERIOR),
        (items(40, 2, 4, 5), Margin("accuracy", 0.05), UNDECIDED),
        (items(400, 5, 6, 40), Margin("accuracy", 0.05, True), NON_INFERIOR),
        (items(300, 0, 90, 60), Margin("accuracy", 0.05, True), INFERIOR),
        (windows("nats_per_byte", 1.003), Margin("nats_per_byte", 0.01, True), NON_INFERIOR),
        (windows("nats_per_byte", 1.03), Margin("nats_per_byte", 0.01, True), INFERIOR),
        (windows("nats_per_byte", 1.01, 0.02), Margin("nats_per_byte", 0.01, True), UNDECIDED),
        (windows("perplexity", 0.9), Margin("perplexity", 0.001), NON_INFERIOR),
        (windows("perplexity", 1.2), Margin("perplexity", 0.1), INFERIOR),
    ],
)
def test_the_interval_decides_against_the_margin(
    measurement: Measurement, margin: Margin, word: str
) -> None:
    found, sentence = non_inferiority(metric(margin.metric), measurement, margin)
    assert found == word
    assert sentence.endswith(f": {word}.")
    assert str(len(measurement.samples)) in sentence


def test_the_word_turns_exactly_at_the_bounds_of_tangos_interval() -> None:
    measurement = items(80, 3, 9, 8)
    low, high = tango(3, 9, 100)
    assert high > 0
    for value, word in ((-low * 1.001, NON_INFERIOR), (-low * 0.999, UNDECIDED)):
        assert (
            non_inferiority(metric("accuracy"), measurement, Margin("accuracy", value))[0] == word
        )
    worse = items(20, 0, 60, 20)
    _, high = tango(0, 60, 100)
    for value, word in ((-high * 0.999, INFERIOR), (-high * 1.001, UNDECIDED)):
        assert non_inferiority(metric("accuracy"), worse, Margin("accuracy", value))[0] == word


def test_a_sentence_says_change_interval_pairs_and_margin() -> None:
    _, sentence = non_inferiority(
        metric("accuracy"), items(400, 5, 6, 40), Margin("accuracy", 0.05)
    )
    assert sentence.startswith("Accuracy changes by −0.222 pp (")
    assert "95 % interval, paired over 451 items" in sentence
    assert "a fall of 5.00 pp is accepted: non-inferior." in sentence
    _, sentence = non_inferiority(
        metric("perplexity"), windows("perplexity", 1.01), Margin("perplexity", 0.02, True)
    )
    assert "16 windows" in sentence
    assert "a rise of 2.0 % is accepted" in sentence


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        (None, "is not known here"),
        (unavailable("perplexity", "", "no tokenizer"), "no tokenizer"),
        (Measurement("perplexity", (3.0,) * 8, "", "measured", ""), "not measured in pairs"),
        (
            Measurement("perplexity", (3.0,) * 8, "", "estimated", "", reference=(3.0,) * 8),
            "not measured in pairs",
        ),
        (windows("perplexity", 1.0, n=4), "at least 5 are needed"),
        (items(0, 3, 0, 50, "task_accuracy"), "of the baseline is 0"),
    ],
)
def test_what_is_not_known_in_pairs_is_undecided_and_says_why(
    measurement: Measurement | None, words: str
) -> None:
    name = "perplexity" if measurement is None else measurement.metric
    word, sentence = non_inferiority(metric(name), measurement, Margin(name, 0.01, True))
    assert word == UNDECIDED
    assert words in sentence
