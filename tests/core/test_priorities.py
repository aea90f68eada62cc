"""Weights and limits from the command line: what can never hold is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import metrics, priorities
from core.errors import BadInput
from core.priorities import Limit, Priorities, parse, parse_limit, parse_weight


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("kl_nats<=0.05", Limit("kl_nats", "<=", 0.05)),
        (" tokens_per_s >= 1e3 ", Limit("tokens_per_s", ">=", 1000.0)),
        ("accuracy>=1", Limit("accuracy", ">=", 1.0)),
        ("perplexity<=1", Limit("perplexity", "<=", 1.0)),
        ("kl_nats<=0", Limit("kl_nats", "<=", 0.0)),
    ],
)
def test_a_limit_is_read(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not of the form metric<=value"),
        ("kl_nats", "is not of the form"),
        ("kl_nats<0.05", "is not of the form"),
        ("kl_nats==0.05", "is not of the form"),
        ("kl_nats<=", "is not of the form"),
        ("kl_nats<=nan", "is not of the form"),
        ("kl_nats<=0.05; rm", "is not of the form"),
        ("0.05>=kl_nats", "is not of the form"),
        ("kl_nats<=1e", "'1e' is not a number"),
        ("kl_nats<=--1", "'--1' is not a number"),
        ("kl_nats<=1e999", "the value must be finite"),
        ("speed>=3", "unknown metric 'speed'; known metrics:"),
        ("kl_nats<=-0.1", "can never hold: kl_nats is never negative"),
        ("ttft_s<=-1", "can never hold"),
        ("accuracy>=1.01", "can never hold: accuracy is at most 1"),
        ("top1_agreement>=2", "can never hold: top1_agreement is at most 1"),
        ("perplexity<=0.99", "can never hold: perplexity is at least 1"),
    ],
)
def test_a_limit_that_is_wrong_or_impossible_gets_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_limit(text)
    assert words in str(caught.value)


def test_an_unknown_value_never_passes_a_limit() -> None:
    for limit in (Limit("kl_nats", "<=", 1e9), Limit("accuracy", ">=", 0.0)):
        for value in (None, float("nan"), float("inf"), float("-inf")):
            assert not limit.passes(value)
    assert Limit("kl_nats", "<=", 0.05).passes(0.05)
    assert not Limit("kl_nats", "<=", 0.05).passes(0.0501)
    assert Limit("tokens_per_s", ">=", 10).passes(10.0)
    assert not Limit("tokens_per_s", ">=", 10).passes(9.99)


@given(st.integers(0, 10**12))
def test_a_limit_is_printed_without_losing_bytes(value: int) -> None:
    assert parse_limit(str(Limit("model_bytes", "<=", float(value)))).value == value


def test_limits_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(BadInput, match="exclude each other"):
        parse([], ["ttft_s<=1", "ttft_s>=2"])
    with pytest.raises(BadInput, match="exclude each other"):
        parse([], ["ttft_s>=2", "ttft_s<=1"])
    assert len(parse([], ["ttft_s<=2", "ttft_s>=2"]).limits) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency", "use name=weight"),
        ("speed=1", "name one of latency, throughput"),
        ("=1", "use name=weight"),
        ("latency=", "'' is not a number"),
        ("latency=much", "'much' is not a number"),
        ("latency=nan", "finite number of at least 0"),
        ("latency=inf", "finite number of at least 0"),
        ("latency=-1", "finite number of at least 0"),
    ],
)
def test_a_weight_that_is_wrong_gets_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_weight(text)
    assert words in str(caught.value)


def test_words_that_are_not_given_weigh_nothing_once_any_is() -> None:
    found = parse(["quality=2", "size=0.5"], [])
    assert {word: found.weight(word) for word in metrics.PRIORITIES} == {
        "latency": 0.0,
        "throughput": 0.0,
        "size": 0.5,
        "energy": 0.0,
        "quality": 2.0,
        "cost": 0.0,
    }
    assert parse([], []) == Priorities()
    assert Priorities().weight("latency") == 1.0
    assert Priorities().weight("taste") == 0.0


def test_at_least_one_weight_must_count() -> None:
    with pytest.raises(BadInput, match="at least one weight"):
        parse(["latency=0", "size=0"], [])


@given(st.text(max_size=30))
def test_any_text_is_a_limit_or_bad_input(text: str) -> None:
    for read in (priorities.parse_limit, priorities.parse_weight):
        try:
            found = read(text)
        except BadInput:
            continue
        assert found
