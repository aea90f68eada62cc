"""Ids: unique, sorted by time, over threads and over processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

import core
from core import ids


def test_ids_of_one_thread_sort_in_the_order_they_were_made() -> None:
    made = [ids.new_id("t") for _ in range(3000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_of_many_threads_are_unique_and_each_thread_sees_them_rise() -> None:
    made: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def work(mine: list[str]) -> None:
        start.wait()
        mine.extend(ids.new_id("e") for _ in range(500))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in made for one in mine}) == 8 * 500
    assert all(mine == sorted(mine) for mine in made)


def test_ids_never_go_back_when_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id("s")
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1)
    assert ids.new_id("s") > first


def test_a_later_process_makes_later_ids() -> None:
    before = [ids.new_id("s") for _ in range(5000)][-1]
    script = "from core import ids; print(ids.new_id('s'))"
    root = str(Path(core.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() > before


def test_an_id_holds_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_123 * 1_000_000)
    digits = ids.new_id("t").removeprefix("t-")
    assert len(digits) == 14
    value = 0
    for digit in digits[:11]:
        value = value * 34 + "0123456789abcdefghijkmnpqrstuvwxyz".index(digit)
    assert value == 1_700_000_000_123_000


def test_now_is_naive_utc_with_milliseconds() -> None:
    read = datetime.fromisoformat(ids.now())
    assert read.tzinfo is None
    assert abs((datetime.now(UTC).replace(tzinfo=None) - read).total_seconds()) < 5
    assert len(ids.now()) == len("2026-11-21T10:00:00.123")


def test_names_keep_their_title_until_two_are_alike() -> None:
    named = ids.distinct({"t-1aaaa": "gptq", "t-2aaaa": "gptq", "t-3bbbb": "gptq", "t-4": "awq"})
    assert named == {
        "t-1aaaa": "gptq …1aaaa",
        "t-2aaaa": "gptq …2aaaa",
        "t-3bbbb": "gptq …bbbb",
        "t-4": "awq",
    }
    # One id is the end of another: the longer one is told apart by being longer.
    assert ids.distinct({"aaaa": "x", "baaaa": "x"}) == {"aaaa": "x …aaaa", "baaaa": "x …baaaa"}
