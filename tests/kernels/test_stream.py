"""The streaming loops move what they say they move; odd sizes and thread counts included."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import stream

pytestmark = pytest.mark.skipif(stream.available() is not None, reason="no C++ compiler here")


@pytest.mark.parametrize("words", [1, 31, 32, 33, 1000, 4096])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_reading_reads_every_word_once(words: int, threads: int) -> None:
    arrays = stream.Arrays(8 * 4096)
    arrays._all[0][:] = np.arange(4096, dtype=np.uint64) * 3 + 1
    wanted = int((np.arange(words) * 3 + 1).sum())
    assert arrays.sum(words, threads) == wanted


@pytest.mark.parametrize("words", [1, 33, 1001])
def test_copy_and_triad_fill_their_part_and_no_more(words: int) -> None:
    arrays = stream.Arrays(8 * 1024)
    source, other, target = arrays._all
    source[:] = np.random.default_rng(0).integers(1, 1 << 40, 1024, dtype=np.uint64)
    assert arrays.run("copy", 8 * words, 2, 3) == 8 * words * 2 * 2
    assert (target[:words] == source[:words]).all()
    assert (target[words:] == 0).all()
    a, b, c = (one.view(np.float32) for one in (source, other, target))
    a[:], b[:] = 1.5, 2.0
    assert arrays.run("triad", 8 * words, 1, 2) == 8 * words * 3
    assert (c[: 2 * words] == 7.5).all()


def test_the_region_gives_the_threads_that_were_asked_for() -> None:
    assert stream.threads_given(1) == 1
    assert stream.threads_given(3) == 3


@pytest.mark.parametrize(
    ("kind", "nbytes", "rounds", "threads"),
    [
        ("write", 8, 1, 1),
        ("read", 4, 1, 1),
        ("read", 8000, 1, 1),
        ("read", 8, 0, 1),
        ("read", 8, 1, 0),
    ],
)
def test_a_wrong_call_is_refused_before_memory_is_touched(
    kind: str, nbytes: int, rounds: int, threads: int
) -> None:
    with pytest.raises(ValueError, match="cannot run"):
        stream.Arrays(800).run(kind, nbytes, rounds, threads)
