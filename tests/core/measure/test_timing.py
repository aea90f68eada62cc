"""Warm-up and repetition against a clock that only moves when a round runs."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("clock", "calls"),
    [
        ([1.0], 2),
        ([9.0, 5.0, 2.0, 1.0, 0.95], 5),
        ([1.0, 1.2, 1.0, 1.2, 1.25], 5),
        ([8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03], 8),
        ([1.0, 0.89, 0.89], 3),
        ([1.0, 0.91], 2),
    ],
    indirect=["clock"],
)
def test_warming_up_ends_when_two_calls_in_a_row_agree(clock: Clock, calls: int) -> None:
    assert timing.warm_up(clock.run) == calls
    assert clock.calls == calls


@pytest.mark.parametrize("clock", [[4.0, 2.0, 1.0, 0.5]], indirect=True)
def test_warming_up_gives_up_after_the_stated_number_of_calls(clock: Clock) -> None:
    assert timing.warm_up(clock.run, most=3) == 3
    assert clock.calls == 3


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
    assert timing.warm_up(clock.run) <= 8
