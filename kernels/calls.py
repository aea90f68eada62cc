"""Counts which kernel really ran, at the call. Owns the process-wide tally and nothing else.

Every public operation calls `count(op, name)` just before the kernel it chose runs, so that a
trial can list what ran instead of guessing it from a plan.
"""

import contextlib
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_calls: dict[tuple[str, str], int] = {}


class Recorded:
    """Calls that were noted without being counted: those of a captured step, which runs them at
    every replay.
    """

    def __init__(self) -> None:
        self.calls: tuple[tuple[tuple[str, str], int], ...] = ()

    def count(self) -> None:
        """Count all of them once."""
        with _lock:
            for key, times in self.calls:
                _calls[key] = _calls.get(key, 0) + times


def count(op: str, name: str, times: int = 1) -> None:
    """Note `times` calls of kernel `name` of operation `op`. Thread-safe, about 0.2 us."""
    key = (op, name)
    with _lock:
        _calls[key] = _calls.get(key, 0) + times


@contextlib.contextmanager
def recorded() -> Iterator[Recorded]:
    """What runs inside is noted in what this yields, and not counted."""
    record = Recorded()
    with _lock:
        kept = dict(_calls)
        _calls.clear()
    try:
        yield record
    finally:
        with _lock:
            record.calls = tuple(_calls.items())
            _calls.clear()
            _calls.update(kept)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What runs inside is not counted: the counts afterwards are those from before."""
    with recorded():
        yield


def reset() -> None:
    """Forget all counts."""
    with _lock:
        _calls.clear()


def snapshot() -> list[dict[str, str | int]]:
    """Return `[{"op", "name", "calls"}]` sorted by op and name; only kernels that ran."""
    with _lock:
        items = sorted(_calls.items())
    return [{"op": op, "name": name, "calls": calls} for (op, name), calls in items]
