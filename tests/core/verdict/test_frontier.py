"""The frontier against a brute-force definition and small cases worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from core.measurement import Measurement, unavailable
from core.study import Trial
from core.verdict.frontier import frontier, lowest, of_values

Make = Callable[..., Trial]


def brute_force(points: list[tuple[float, ...]]) -> list[int]:
    """The definition, word for word: nobody is at least as good everywhere and better somewhere."""
    kept = []
    for i, mine in enumerate(points):
        beaten = any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in points
        )
        if not beaten and mine not in points[:i]:
            kept.append(i)
    return kept


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * n), max_size=40)
    )
)
def test_the_frontier_is_what_the_definition_says(points: list[tuple[float, ...]]) -> None:
    assert lowest(points) == brute_force(points)


def test_a_thousand_random_points_agree_with_brute_force_on_two_axes() -> None:
    source = random.Random(5)
    points = [(source.random(), source.random()) for _ in range(1000)]
    assert lowest(points) == brute_force(points)


def test_directions_come_from_the_table_of_metrics() -> None:
    axes = ("tpot_s", "tokens_per_s")
    rows = [[0.01, 100.0], [0.02, 200.0], [0.02, 100.0], [0.01, 90.0]]
    assert of_values(rows, axes) == [0, 1]


def make(synthetic_trial: Make, tpot: float | None, size: float) -> Trial:
    time = (
        unavailable("tpot_s", "s", "not timed")
        if tpot is None
        else Measurement("tpot_s", (tpot,), "s", "measured", "timed")
    )
    return synthetic_trial((), (time, Measurement("model_bytes", (size,), "B", "measured", "")))


def test_a_trial_without_a_value_is_left_out(synthetic_trial: Make) -> None:
    known = make(synthetic_trial, 0.01, 100.0)
    blind = make(synthetic_trial, None, 1.0)
    assert frontier([blind, known], ("tpot_s", "model_bytes")) == (known,)


def test_equal_trials_are_kept_once_and_the_order_given_stays(synthetic_trial: Make) -> None:
    first = make(synthetic_trial, 0.02, 50.0)
    again = make(synthetic_trial, 0.02, 50.0)
    other = make(synthetic_trial, 0.01, 60.0)
    assert frontier([first, again, other], ("tpot_s", "model_bytes")) == (first, other)


def test_no_axis_and_an_unknown_axis_are_refused(synthetic_trial: Make) -> None:
    with pytest.raises(BadInput, match="at least one axis"):
        frontier([], ())
    with pytest.raises(BadInput, match="unknown metric 'speed'"):
        frontier([], ("speed",))
