"""The thing that techniques change: a loaded model and the way it is run. Lives only inside a
worker process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.caution import Note
from core.engine.serve.serving import Serving
from core.measurement import Measurement
from core.plan import Case

if TYPE_CHECKING:
    from core.engine.serve.server import Server


@dataclass
class Deployment:
    """Mutable on purpose: it exists between loading and measuring.

    `engine` is a TextEngine or ImageEngine (core.engine.protocol); `load_baseline` makes a fresh,
    unchanged copy for teachers and comparisons; `serving` is how requests are served. `note` writes
    one line into the trial's log; `report` tells progress in [0, 1]; `keep` adds a measurement that
    a technique took to the trial's; `learned` is what core.techniques.training_text has read for
    them.
    """

    case: Case
    engine: Any
    load_baseline: Callable[[], Any]
    tokenizer: Any = None
    device: str = "cpu"
    seed: int = 0
    serving: Serving = field(default_factory=Serving)
    note: Callable[[Note], None] = field(default=lambda note: None)
    report: Callable[[float], None] = field(default=lambda share: None)
    keep: Callable[[Measurement], None] = field(default=lambda measurement: None)
    learned: dict[str, Any] = field(default_factory=dict)

    def server(self) -> Server:
        """A fresh server of the engine as it is now, under `serving`."""
        if self.case.model.task == "image":
            return self.serving.images(self.engine)
        return self.serving.text(self.engine)

    def weight_bytes(self) -> int:
        """Bytes resident for the weights of the engine and of what is served beside it."""
        return sum(int(engine.weight_bytes()) for engine in (self.engine, *self.serving.beside))

    @property
    def prefix(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text: every text that the model reads begins so."""
        if self.case.model.task == "image":
            return ()
        prefix: tuple[int, ...] = self.engine.special_ids.prefix
        return prefix
