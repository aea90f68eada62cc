"""Owns the caches of a server's batches: on a GPU a batch goes on in the memory of an earlier one
with as many rows, over which steps are captured already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from core.engine.protocol import TextEngine


class Lent(NamedTuple):
    """A cache with room for so many tokens in each row, and for `size` in all."""

    cache: Any
    room: int
    size: int


class Caches:
    """The caches of one server, whose batches run one after another.

    Those of one engine together have no more room than two of its largest one would: what was not
    used for longest goes first.
    """

    def __init__(self) -> None:
        # By engine and rows, the one used last at the end.
        self._kept: dict[tuple[int, int], Lent] = {}

    def lend(self, engine: TextEngine, batch: int, capacity: int) -> Any:
        """An empty cache for `batch` rows of at least `capacity` tokens. The one of as many rows
        that was lent before is empty with that, or gone.
        """
        if engine.device == "cpu" or engine.lean is None:
            return engine.new_cache(batch, capacity)
        key = (id(engine), batch)
        kept = self._kept.pop(key, None)
        if kept is not None and kept.room >= capacity:
            kept.cache.truncate([0] * batch)
        else:
            # Memory is given back before more is asked for.
            kept, size = None, batch * capacity
            self._make_room(key[0], size)
            kept = Lent(engine.new_cache(batch, capacity), capacity, size)
        self._kept[key] = kept
        return kept.cache

    def _make_room(self, engine: int, size: int) -> None:
        sizes = {key: kept.size for key, kept in self._kept.items() if key[0] == engine}
        most = 2 * max([size, *sizes.values()])
        for key in list(sizes):
            if size + sum(sizes.values()) <= most:
                break
            del sizes[key], self._kept[key]
