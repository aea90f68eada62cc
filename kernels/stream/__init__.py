"""Binds stream.cpp: how fast arrays of a size are read, copied and added, and what a call costs.

Owns the calls and their argument checks; core.machine.calibration decides sizes and repetitions.
These are no operation of a model, so they are not in the registry and not counted.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np

from kernels import build

KINDS = ("read", "copy", "triad")
# Bytes that a pass moves for each byte of one array: what it reads and what it writes.
MOVED = {"read": 1, "copy": 2, "triad": 3}


def available() -> str | None:
    """None when the functions can be built here, else one sentence why not."""
    return build.why_not(library)


class Arrays:
    """Three arrays of up to `nbytes` each, touched once so that the kernel has given the pages."""

    def __init__(self, nbytes: int) -> None:
        if nbytes < 8:
            raise ValueError(f"an array needs 8 bytes or more, not {nbytes}")
        self.words = nbytes // 8
        # Values below 2^53 are tiny fp32 pairs: no sum of them is slow, infinite or not a number.
        self._all = [np.full(self.words, value, np.uint64) for value in (1, 2, 0)]

    def run(self, kind: str, nbytes: int, rounds: int, threads: int) -> int:
        """Go over `nbytes` of each array `rounds` times with `threads`; returns the bytes moved."""
        words = nbytes // 8
        if kind not in KINDS or not 1 <= words <= self.words or rounds < 1 or threads < 1:
            raise ValueError(f"cannot run {kind!r} over {nbytes} bytes {rounds} times")
        a, b, c = (array.ctypes.data for array in self._all)
        library().trimtab_stream(KINDS.index(kind), a, b, c, words, rounds, threads)
        return words * 8 * rounds * MOVED[kind]

    def sum(self, words: int, threads: int) -> int:
        """The sum of the first array's words, for tests; modulo 2^64."""
        a, b, c = (array.ctypes.data for array in self._all)
        return int(library().trimtab_stream(0, a, b, c, words, 1, threads))


def threads_given(threads: int) -> int:
    """How many threads a parallel region really gets."""
    return int(library().trimtab_stream_threads(threads))


@functools.cache
def library() -> ctypes.CDLL:
    """The built functions. Raises KernelUnavailable."""
    built = build.load(Path(__file__).with_name("stream.cpp"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    built.trimtab_stream.argtypes = (number, pointer, pointer, pointer, number, number, number)
    built.trimtab_stream.restype = ctypes.c_uint64
    built.trimtab_stream_threads.argtypes = (number,)
    built.trimtab_stream_threads.restype = number
    built.trimtab_regions.argtypes = (number, number)
    built.trimtab_regions.restype = None
    built.trimtab_nothing.argtypes = (pointer, number, number)
    built.trimtab_nothing.restype = None
    return built
