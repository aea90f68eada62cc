"""Owns serving an image classifier: a Server whose requests are images, done in one step."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

import torch

from core.engine.protocol import ImageEngine
from core.engine.serve import PREFILL
from core.engine.serve.scheduler import STATIC, Scheduler
from core.engine.serve.sequence import Emitted, Request, Sequence, Stats, collated


class ImageServer:
    """See core.engine.serve.server.Server: the class of an image is its one token."""

    def __init__(self, engine: ImageEngine, scheduler: Scheduler = STATIC) -> None:
        self.engine = engine
        self.scheduler = scheduler
        self._waiting: deque[Sequence] = deque()
        self._submitted = 0
        self._stats = Stats()

    @property
    def phase(self) -> str:
        """See Server."""
        return PREFILL if self._waiting else ""

    def submit(self, request: Request, arrived_at: float | None = None) -> Sequence:
        """See Server."""
        arrived_at = time.perf_counter() if arrived_at is None else arrived_at
        sequence = Sequence(self._submitted, request, arrived_at)
        self._submitted += 1
        self._waiting.append(sequence)
        return sequence

    @torch.inference_mode()
    def step(self) -> Emitted:
        """Classify the images that start together."""
        started_at = time.perf_counter()
        sequences = self.scheduler.admit(self._waiting, 0)
        if not sequences:
            return Emitted([], [])
        # Fetching the classes waits for a device that computes behind our back.
        classes = self.engine(collated(sequences)).argmax(-1)[:, None].tolist()
        now = time.perf_counter()
        for sequence, ids in zip(sequences, classes, strict=True):
            sequence.started_at, sequence.together = started_at, len(sequences)
            sequence.take(ids, now)
        self._stats.passes += 1
        return Emitted(sequences, classes)

    def stats(self) -> Stats:
        """See Server."""
        return replace(self._stats)
