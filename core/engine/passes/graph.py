"""Owns capturing a run as a CUDA graph and replaying it. Knows nothing of what the run computes.

A run is a call without arguments over tensors that stay where they are. It must not wait for the
device: what it decides in Python is decided once, at its capture, and so for every replay.
Not yet run on a GPU.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch

from kernels import calls
from kernels.cuda import CaptureFailed, capture

Run = Callable[[], object]
# A run's first calls go eagerly: kernels are compiled and chosen by measuring there, and libraries
# take the memory that they keep.
WARM_UPS = 2


class Graphs:
    """The captured runs of one engine on `device`.

    They share one pool of memory: one run replays at a time, and none reads what another left in
    it. `reasons` says why runs of this engine are not captured; empty while all are.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.reasons: list[str] = []
        self._living: weakref.WeakSet[Captured] = weakref.WeakSet()

    def __call__(self, run: Run) -> Run:
        """`run` as a call that is captured after its first calls; eager where that fails."""
        return Captured(run, self)

    def refused(self, reason: str) -> None:
        """Note once why something runs eagerly."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def pool(self) -> Any:
        """The pool of the runs that are captured now; a fresh one where there is none, for a pool
        must not be used again once its last graph is gone.
        """
        for run in self._living:
            return run.pool
        return torch.cuda.graph_pool_handle()

    def add(self, run: Captured) -> None:
        """`run` is captured now. A reference that is not counted: its memory goes with the run."""
        self._living.add(run)


class Captured:
    """One run: eager at first, then a graph."""

    pool: Any

    def __init__(self, run: Run, graphs: Graphs) -> None:
        self._run = run
        self._graphs = graphs
        self._waiting = WARM_UPS
        self._graph: torch.cuda.CUDAGraph | None = None
        self._recorded = calls.Recorded()

    def __call__(self) -> None:
        """Run it once, behind what the current stream has to do."""
        if self._graph is None and self._waiting == 0:
            self._capture()
        if self._graph is not None:
            self._recorded.count()
            self._graph.replay()
        elif self._waiting > 0:
            self._waiting -= 1
            self._beside()
        else:
            self._run()

    def _beside(self) -> None:
        """Eagerly on the stream that captures, so that what libraries keep for a stream is there
        before the capture.
        """
        now, side = torch.cuda.current_stream(self._graphs.device), _side(self._graphs.device)
        side.wait_stream(now)
        with torch.cuda.stream(side):
            self._run()
        now.wait_stream(side)

    def _capture(self) -> None:
        device, self.pool = self._graphs.device, self._graphs.pool()
        try:
            with calls.recorded() as self._recorded:
                self._graph = capture(self._run, device, self.pool, _side(device))
        except CaptureFailed as failure:
            self._waiting = -1
            self._graphs.refused(f"the step could not be captured as a CUDA graph ({failure})")
        else:
            self._graphs.add(self)


@functools.cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The stream that everything is captured on: what libraries keep, they keep once."""
    return torch.cuda.Stream(device)
