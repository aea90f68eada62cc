"""Owns the caches of a server's batches: on a GPU a batch goes on in the memory of the one before,
over which steps are captured already.
"""

from __future__ import annotations

from typing import Any

from core.engine.protocol import TextEngine


class Caches:
    """One cache for each engine of a server; its batches run one after another."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, int, Any]] = {}

    def lend(self, engine: TextEngine, batch: int, capacity: int) -> Any:
        """An empty cache for `batch` rows of at least `capacity` tokens; the engine's last one is
        empty or gone with that.
        """
        if engine.device == "cpu" or engine.lean is None:
            return engine.new_cache(batch, capacity)
        rows, room, cache = self._kept.pop(id(engine), (0, 0, None))
        if rows == batch and room >= capacity:
            cache.truncate([0] * batch)
        else:
            # The memory of the last one first.
            cache = None
            room, cache = capacity, engine.new_cache(batch, capacity)
        self._kept[id(engine)] = (batch, room, cache)
        return cache
