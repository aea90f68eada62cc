"""Binds C++ kernels to their arguments once and runs many of them on one team of threads.

Owns: BoundCall (one kernel with its arguments), BoundCalls (a step of several), Program (many, run
by one call from Python) and their counting. Knows nothing of what a kernel computes.
"""

import ctypes
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from kernels import build, calls

Step = Callable[[], object]


# Below this many bytes for each entry, a second thread costs more than it saves.
ALONE_BYTES = 16384


class _Entry(ctypes.Structure):
    _fields_ = (
        ("part", ctypes.c_void_p),
        ("call", ctypes.c_void_p),
        ("most", ctypes.c_int64),
        ("state", ctypes.c_int64 * 5),
    )


class BoundCall:
    """A kernel of `op` and its arguments. Calling it runs it; `join` makes it part of a Program.

    `parts` are C functions void(const void* record, int64 share, int64 shares) that run in turn
    over `record`, each as all of its shares; `kept` holds the tensors whose addresses the record
    contains; `work` is about the bytes that one run touches; `most` limits the useful shares (0:
    no limit).
    """

    __slots__ = ("_alone", "kept", "most", "name", "op", "parts", "record", "work")

    def __init__(
        self,
        op: str,
        name: str,
        parts: Iterable[object],
        record: ctypes.Structure,
        kept: object,
        work: int,
        most: int = 0,
    ) -> None:
        self.op = op
        self.name = name
        self.parts = tuple(ctypes.cast(part, ctypes.c_void_p).value for part in parts)  # type: ignore[arg-type]
        self.record = record
        self.kept = kept
        self.work = work
        self.most = most
        self._alone: Program | None = None

    def __call__(self) -> None:
        if self._alone is None:
            self._alone = Program((self,))
        self._alone()


class BoundCalls(tuple[BoundCall, ...]):
    """Bound calls that are one step; `join` takes them apart."""

    __slots__ = ()

    def __call__(self) -> None:
        for call in self:
            call()


class Program:
    """Bound calls that run in order; each is counted at every run."""

    __slots__ = ("_count", "_counts", "_kept", "_memory", "_run", "_small", "_table")

    def __init__(self, bound: Iterable[BoundCall]) -> None:
        self._kept = tuple(bound)
        entries = [
            _Entry(part, ctypes.addressof(call.record), call.most)
            for call in self._kept
            for part in call.parts
        ]
        size = ctypes.sizeof(_Entry)
        assert _library().trimtab_entry_bytes() == size
        # The threads' counters want a cache line of their own.
        self._memory = (ctypes.c_char * (size * (len(entries) + 1)))()
        self._table = -(-ctypes.addressof(self._memory) // size) * size
        for i, entry in enumerate(entries):
            ctypes.memmove(self._table + i * size, ctypes.addressof(entry), size)
        self._count = len(entries)
        self._small = sum(call.work for call in self._kept) < ALONE_BYTES * len(entries)
        self._run = _library().trimtab_run
        counts: dict[tuple[str, str], int] = {}
        for call in self._kept:
            counts[call.op, call.name] = counts.get((call.op, call.name), 0) + 1
        self._counts = tuple((op, name, times) for (op, name), times in counts.items())

    def __call__(self) -> None:
        import torch

        for op, name, times in self._counts:
            calls.count(op, name, times)
        self._run(self._table, self._count, 1 if self._small else torch.get_num_threads())


def join(steps: Iterable[Step]) -> list[Step]:
    """The same steps with each run of neighbouring BoundCalls made one Program."""
    joined: list[Step] = []
    waiting: list[BoundCall] = []
    for step in steps:
        if isinstance(step, BoundCall):
            waiting.append(step)
            continue
        if isinstance(step, BoundCalls):
            waiting += step
            continue
        if waiting:
            joined.append(Program(waiting))
            waiting = []
        joined.append(step)
    if waiting:
        joined.append(Program(waiting))
    return joined


@functools.cache
def _library() -> ctypes.CDLL:
    library = build.load(Path(__file__).with_name("program.cpp"))
    library.trimtab_run.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    library.trimtab_run.restype = None
    library.trimtab_entry_bytes.restype = ctypes.c_int64
    return library
