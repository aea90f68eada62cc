"""Owns ids on their way to the host: they are sent when a pass is queued, and waited for later."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """Ids int64 [B, T] that a pass chooses, on their way to the host.

    From a GPU they go into pinned memory behind what its stream has to do, so that more work can be
    queued before anyone waits. They may be written again once this is made.
    """

    def __init__(self, ids: Tensor) -> None:
        self._there: torch.cuda.Event | None = None
        if ids.is_cuda:
            self._pinned = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
            self._pinned.copy_(ids, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record(torch.cuda.current_stream(ids.device))
        else:
            self._ids: list[list[int]] = ids.tolist()

    def wait(self) -> list[list[int]]:
        """The ids, as soon as they are there."""
        if self._there is None:
            return self._ids
        self._there.synchronize()
        ids: list[list[int]] = self._pinned.tolist()
        return ids
