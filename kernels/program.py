"""Binds C++ kernels to their arguments once and runs many of them on one team of threads.

Owns: BoundCall (one kernel with its arguments), Program (several, run by one call from Python) and
their counting. Knows nothing of what a kernel computes.
"""

import ctypes
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from kernels import build, calls

Step = Callable[[], object]


class _Entry(ctypes.Structure):
    _fields_ = (("part", ctypes.c_void_p), ("call", ctypes.c_void_p))


class BoundCall:
    """A kernel of `op` and its arguments. Calling it runs it; `join` makes it part of a Program.

    `parts` are C functions void(const void* record, int64 thread, int64 threads) that run in turn
    over `record`; `kept` holds the tensors whose addresses the record contains; `threads` limits
    the team when the work is small (0: as many as torch uses).
    """

    __slots__ = ("_alone", "kept", "name", "op", "parts", "record", "threads")

    def __init__(
        self,
        op: str,
        name: str,
        parts: Iterable[object],
        record: ctypes.Structure,
        kept: object,
        threads: int = 0,
    ) -> None:
        self.op = op
        self.name = name
        self.parts = tuple(ctypes.cast(part, ctypes.c_void_p).value for part in parts)  # type: ignore[arg-type]
        self.record = record
        self.kept = kept
        self.threads = threads
        self._alone: Program | None = None

    def __call__(self) -> None:
        if self._alone is None:
            self._alone = Program((self,), self.threads)
        self._alone()


class Program:
    """Bound calls that run in order; each is counted at every run."""

    __slots__ = ("_count", "_counts", "_kept", "_run", "_table", "_threads")

    def __init__(self, bound: Iterable[BoundCall], threads: int = 0) -> None:
        self._kept = tuple(bound)
        entries = [
            _Entry(part, ctypes.addressof(call.record))
            for call in self._kept
            for part in call.parts
        ]
        self._table = (_Entry * len(entries))(*entries)
        self._count = len(entries)
        self._threads = threads
        self._run = _library().trimtab_run
        counts: dict[tuple[str, str], int] = {}
        for call in self._kept:
            counts[call.op, call.name] = counts.get((call.op, call.name), 0) + 1
        self._counts = tuple((op, name, times) for (op, name), times in counts.items())

    def __call__(self) -> None:
        import torch

        for op, name, times in self._counts:
            calls.count(op, name, times)
        self._run(self._table, self._count, self._threads or torch.get_num_threads())


def join(steps: Iterable[Step]) -> list[Step]:
    """The same steps with each run of neighbouring BoundCalls made one Program."""
    joined: list[Step] = []
    waiting: list[BoundCall] = []
    for step in steps:
        if isinstance(step, BoundCall):
            waiting.append(step)
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
    return library
