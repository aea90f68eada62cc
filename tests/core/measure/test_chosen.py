"""A trial says in a line which kernels measuring chose, and by how much."""

from __future__ import annotations

import pytest

from core.measure import chosen
from kernels.choice import Answer, Question


def answer(shape: tuple[int, int], rows: int, name: str, **seconds: float) -> Answer:
    question = Question("linear_fp8", "fp8-fp8", shape, rows, "bf16")
    samples = {key.replace("_", "-"): (value,) for key, value in seconds.items()}
    return Answer(question, "a GPU", "torch 2.11", name, samples, {}, "2026-11-30T20:00:00")


def test_the_margins_of_several_shapes_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        answer((64, 64), 1, "triton", triton=2.0, torch_scaled_mm=3.0),
        answer((64, 64), 128, "torch-scaled-mm", triton=4.0, torch_scaled_mm=2.0),
        answer((96, 64), 128, "torch-scaled-mm", triton=5.0, torch_scaled_mm=4.0),
        answer((96, 64), 512, "triton", triton=5.0),
    ]
    monkeypatch.setattr(chosen, "asked", lambda: answers)
    assert chosen.notes() == [
        "linear_fp8: kernels chosen by measuring them here: triton at 1 row (1.50 times as fast as"
        " the next), torch-scaled-mm at 128 rows (1.25 to 2.00 times as fast as the next,"
        " 2 shapes), triton at 512 rows"
    ]


def test_a_trial_that_chose_nothing_by_measuring_says_nothing() -> None:
    assert chosen.notes() == []
