"""Owns how a loaded model is served, as techniques choose it, and making the server of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.engine.serve.proposer import Proposer
from core.engine.serve.scheduler import STATIC, Scheduler

if TYPE_CHECKING:
    from core.engine.protocol import TextEngine
    from core.engine.serve.server import Server


@dataclass(frozen=True)
class Serving:
    """Which requests go together, and what proposes tokens ahead of the model."""

    scheduler: Scheduler = STATIC
    proposer: Proposer | None = None

    @property
    def batch(self) -> int:
        """The most requests that are served together."""
        return self.scheduler.batch

    @property
    def beside(self) -> tuple[TextEngine, ...]:
        """Models that are resident beside the one that is served."""
        return () if self.proposer is None else self.proposer.engines

    def text(self, engine: TextEngine) -> Server:
        """A server of a language model."""
        from core.engine.serve.server import EngineServer

        return EngineServer(engine, self.scheduler, self.proposer)

    def images(self, engine: Any) -> Server:
        """A server of an image classifier."""
        from core.engine.serve.images import ImageServer

        return ImageServer(engine, self.scheduler)
