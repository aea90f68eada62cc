"""Warm-up and repetition against a clock that only moves when a round runs."""

from __future__ import annotations

import numpy as np
import pytest

from core.measure import timing


class Clock:
    """Time that passes by the given seconds at each call of `run`."""

    def __init__(self, seconds: list[float]) -> None:
        self.now = 100.0
        self.seconds = seconds
        self.calls = 0

    def run(self) -> int:
        self.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        return self.calls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    found = Clock(request.param)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: found.now)
    return found


STEADY = [
    ([1.0], 6),
    ([9.0, 5.0, 2.0, 1.0, 0.99, 1.01, 1.0, 0.99], 7),
    ([1.0, 1.2, 0.9, 1.1, 1.0, 1.2], 6),
    # Later rounds are all faster, but by less than 2 %.
    ([1.0, 1.001, 1.002, 0.99, 0.991, 0.992], 6),
]


@pytest.mark.parametrize(("clock", "calls"), STEADY, indirect=["clock"])
def test_warming_up_ends_when_rounds_no_longer_get_faster(clock: Clock, calls: int) -> None:
    assert timing.warm_up(clock.run) == timing.WarmUp(calls, True)
    assert clock.calls == calls


@pytest.mark.parametrize("clock", [[2.0**-n for n in range(40)]], indirect=True)
def test_a_warming_up_that_never_ends_says_so(clock: Clock) -> None:
    found = timing.warm_up(clock.run, most=9)
    assert found == timing.WarmUp(9, False)
    assert str(found) == "9 warm-up rounds in which it did not become steady"


@pytest.mark.parametrize("clock", [[15.0, 10.0, 10.0]], indirect=True)
def test_slow_rounds_end_the_warming_up_by_time_and_say_that_they_were_few(clock: Clock) -> None:
    found = timing.warm_up(clock.run, seconds=20.0)
    assert found == timing.WarmUp(2, None)
    assert "too few to tell" in str(found)


def test_chance_alone_seldom_looks_like_a_trend() -> None:
    random = np.random.default_rng(1)
    rejected = sum(not timing.is_steady(random.lognormal(0, 0.1, 6).tolist()) for _ in range(2000))
    assert rejected / 2000 == pytest.approx(1 / 20, abs=0.015)


@pytest.mark.parametrize("clock", [[1.0]], indirect=True)
def test_ours_and_theirs_take_turns_and_swap_who_begins(clock: Clock) -> None:
    order: list[str] = []

    def ours() -> str:
        clock.run()
        order.append("A")
        return "A"

    def theirs() -> str:
        order.append("B")
        return "B"

    pairs = timing.alternate(ours, theirs, 4, 0.0001, lambda share: None)
    assert "".join(order) == "ABBAABBA"
    assert pairs == [("A", "B")] * 4


@pytest.mark.parametrize("clock", [[0.5]], indirect=True)
def test_only_our_own_time_counts_towards_the_seconds_wanted(clock: Clock) -> None:
    def theirs() -> int:
        clock.now += 100
        return 0

    assert len(timing.alternate(clock.run, theirs, 2, 2.0, lambda share: None)) == 4


@pytest.mark.parametrize(
    ("clock", "repeats", "seconds", "expected"),
    [
        ([1.0], 5, 0.8, 5),
        ([0.1], 5, 2.05, 21),
        ([3.0], 1, 0.5, 1),
        ([0.5], 3, 1.5, 3),
    ],
    indirect=["clock"],
)
def test_rounds_are_repeated_for_a_number_and_a_time(
    clock: Clock, repeats: int, seconds: float, expected: int
) -> None:
    shares: list[float] = []
    found = timing.repeat(clock.run, repeats, seconds, shares.append)
    assert found == list(range(1, expected + 1))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(0 < share < 1 for share in shares[:-1])


@pytest.mark.parametrize("clock", [[0.0]], indirect=True)
def test_rounds_that_take_no_time_still_end(clock: Clock) -> None:
    assert len(timing.repeat(clock.run, 2, 1.0, lambda share: None, most=50)) == 50
    assert timing.warm_up(clock.run).calls <= 8


@pytest.mark.parametrize("clock", [[40.0, 30.0, 1.0]], indirect=True)
def test_rounds_that_compile_are_neither_judged_nor_timed(clock: Clock) -> None:
    found = timing.warm_up(clock.run, seconds=8.0, unjudged=2)
    assert found == timing.WarmUp(8, True)
    assert str(found) == "8 warm-up rounds"
