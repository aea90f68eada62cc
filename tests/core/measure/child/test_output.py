"""Reading the lines of a pipe, whatever a broken process writes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from core.measure.child.output import TOO_LONG, TOO_MUCH, Output


@pytest.fixture
def pipe() -> Iterator[tuple[Output, int]]:
    """An Output for lines of 1,000 bytes and 100 kB in all, and the end to write to."""
    read, write = os.pipe()
    yield Output(read, 1000, 100_000), write
    for end in (write,):
        try:
            os.close(end)
        except OSError:
            continue


def test_lines_arrive_whole_however_they_are_cut(pipe: tuple[Output, int]) -> None:
    output, write = pipe
    for piece in (b"one\ntw", b"o\n", b"\n", b"cut off by a death"):
        os.write(write, piece)
    os.close(write)
    assert output.drain(5.0) == [b"one", b"two", b""]


def test_a_line_without_end_is_named_and_the_rest_is_not_read(pipe: tuple[Output, int]) -> None:
    output, write = pipe
    for piece in (b"good\n", b"x" * 5000, b"\nnot read\n"):
        os.write(write, piece)
    os.close(write)
    found = output.drain(5.0)
    assert found[0] == b"good"
    assert TOO_LONG in found
    assert b"not read" not in found


def test_output_without_end_is_named(pipe: tuple[Output, int]) -> None:
    output, write = pipe
    taken: list[bytes] = []
    for _ in range(150):
        os.write(write, b"y" * 999 + b"\n")
        taken += output.take(0)[0]
    os.close(write)
    taken += output.drain(5.0)
    assert taken[-1] == TOO_MUCH
    assert len(taken) <= 102


def test_whoever_asks_after_the_last_line_does_not_wait(
    pipe: tuple[Output, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = pipe
    os.close(write)
    assert output.take(5.0) == ([], True)
    monkeypatch.setattr(output._lines, "get", lambda timeout: pytest.fail("it waits"))
    assert output.take(5.0) == ([], True)
    assert output.drain(5.0) == []
