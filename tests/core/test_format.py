"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from core import format as shown
from core.errors import BadInput


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ttft_s", 0.0123, "12.3 ms"),
        ("ttft_s", 75.0, "75.0 s"),
        ("tpot_s", 0.000297, "297 µs"),
        ("model_bytes", 20_260_608.0, "20.3 MB"),
        ("model_bytes", 512.0, "512 B"),
        ("tokens_per_s", 2385.4, "2,385 tokens/s"),
        ("usd_per_mtok", 0.12, "$0.120"),
        ("accuracy", 0.981, "98.10 %"),
        ("kl_nats", 0.0, "0 nat"),
        ("ttft_s", None, "unknown"),
        ("ttft_s", math.nan, "unknown"),
        ("ttft_s", math.inf, "unknown"),
    ],
)
def test_a_metric_is_written_with_the_unit_that_fits(
    name: str, value: float | None, text: str
) -> None:
    assert shown.of_metric(name, value) == text


def test_an_unknown_metric_is_bad_input() -> None:
    with pytest.raises(BadInput, match="speed"):
        shown.of_metric("speed", 1.0)


@pytest.mark.parametrize("value", [0.00099949, 0.0009996, 0.99996, 999.5, 59.99, 119.99, 120.0])
def test_rounding_never_shows_a_thousand_of_a_unit(value: float) -> None:
    number = shown.number(value, "s").split()[0]
    assert float(number.replace(",", "")) < 1000


def test_differences_carry_their_sign() -> None:
    assert shown.signed(0.0012, "s") == "+1.20 ms"
    assert shown.signed(-20.3e6, "B") == "−20.3 MB"
    assert shown.percent(-0.419) == "−41.9 %"
    assert shown.ratio(1.92) == "1.92x"


def test_weights_name_the_active_ones_of_a_mixture_alone() -> None:
    assert shown.weights(10_100_000, 10_100_000) == "10.1 million weights"
    mixture = shown.weights(46_702_792_704, 12_879_925_248)
    assert mixture == "46.7 billion weights, 12.9 billion active"
