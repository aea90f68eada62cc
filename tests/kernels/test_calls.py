from __future__ import annotations

import threading

import pytest

from kernels import calls

pytestmark = pytest.mark.usefixtures("fresh")


def test_nothing_ran_before_the_first_call() -> None:
    assert calls.snapshot() == []


def test_a_snapshot_lists_kernels_by_name_with_their_calls() -> None:
    calls.count("linear_lowbit", "torch-int8pack")
    calls.count("attention", "cpp")
    calls.count("linear_lowbit", "torch-int8pack")
    assert calls.snapshot() == [
        {"op": "attention", "name": "cpp", "calls": 1},
        {"op": "linear_lowbit", "name": "torch-int8pack", "calls": 2},
    ]
    calls.reset()
    assert calls.snapshot() == []


def test_no_call_is_lost_between_threads() -> None:
    def work() -> None:
        for _ in range(5000):
            calls.count("op", "kernel")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.snapshot() == [{"op": "op", "name": "kernel", "calls": 20_000}]
