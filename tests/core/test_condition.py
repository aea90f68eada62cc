"""Conditions: typed inside, the texts of old in stores and documents."""

from __future__ import annotations

import pytest

from core.condition import AS_ASKED, Condition, concurrency, matrix, part, prompt_tokens, read
from core.journal import codec
from core.measurement import Measurement

KNOWN = {
    "": AS_ASKED,
    "prompt_tokens=256": prompt_tokens(256),
    "concurrency=4": concurrency(4),
    "rate=4/s": Condition("rate", 4.0),
    "rate=0.25/s": Condition("rate", 0.25),
    "trace=3f2a9c00": Condition("trace", "3f2a9c00"),
    "data=my = file.jsonl": Condition("data", "my = file.jsonl"),
    "calibration=bundled": Condition("calibration", "bundled"),
    "training=model": Condition("training", "model"),
    "weights:bf16": part("weights", "bf16"),
    "kv": part("kv"),
    "workspace": part("workspace"),
    "libraries": part("libraries"),
    "layers.3.down": matrix("layers.3.down"),
    "layers.3.down/int4": matrix("layers.3.down", 4),
}


@pytest.mark.parametrize(("text", "condition"), KNOWN.items())
def test_a_condition_and_its_text_are_each_other(text: str, condition: Condition) -> None:
    assert read(text) == condition
    assert str(condition) == text
    assert bool(condition) == bool(text)


@pytest.mark.parametrize(
    "text",
    ["prompt_tokens=0256", "prompt_tokens=x", "concurrency=", "rate=4", "rate=4.0/s", "rate=x/s",
     "moon=full", "a:b", "weights", "x/y/int4", "kv/int4", "=", "/", ":", "concurrency=²"],
)  # fmt: skip
def test_any_other_text_is_kept_as_it_is(text: str) -> None:
    assert str(read(text)) == text


def test_bits_are_those_of_an_integer_format() -> None:
    assert matrix("a", 4).bits == 4
    assert read("a/nf4").bits is None
    assert read("a").bits is None


def test_a_measurement_is_written_and_read_with_the_text() -> None:
    measurement = Measurement(
        "ttft_s", (1.0,), "s", "measured", "clock", condition=prompt_tokens(256)
    )
    data = codec.to_data(measurement)
    assert data["condition"] == "prompt_tokens=256"
    assert codec.from_data(data) == measurement
    plain = codec.to_data(Measurement("ttft_s", (1.0,), "s", "measured", "clock"))
    assert plain["condition"] == ""
    assert codec.from_data(plain).condition is AS_ASKED
