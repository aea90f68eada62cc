"""Timed rounds: warm up until steady, then repeat for a minimum number and a minimum time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Round = TypeVar("Round")


def warm_up(run: Callable[[], object], most: int = 8, tolerance: float = 0.1) -> int:
    """Call `run` until two calls in a row differ by less than `tolerance`, at most `most` times;
    returns the calls.
    """
    last = float("inf")
    for call in range(1, most + 1):
        began = time.perf_counter()
        run()
        took = time.perf_counter() - began
        if abs(took - last) < tolerance * last:
            return call
        last = took
    return most


def repeat(
    run: Callable[[], Round],
    repeats: int,
    seconds: float,
    report: Callable[[float], None],
    most: int = 10_000,
) -> list[Round]:
    """Results of at least `repeats` calls that together took at least `seconds`, at most `most`
    calls.
    """
    results: list[Round] = []
    began = time.perf_counter()
    while len(results) < most:
        results.append(run())
        spent = time.perf_counter() - began
        report(min(len(results) / repeats, spent / seconds, 1.0))
        if len(results) >= repeats and spent >= seconds:
            break
    return results
