"""The thing that techniques change: a loaded model and the way it is run. Lives only inside a
worker process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.caution import Note
from core.measurement import Measurement
from core.plan import Case


@dataclass
class Deployment:
    """Mutable on purpose: it exists between loading and measuring.

    `engine` is a TextEngine or ImageEngine (core.engine.protocol); `baseline` is a fresh,
    unchanged copy maker for teachers and comparisons; `draft` and `draft_tokens` describe
    speculative decoding; `batch` is the number of sequences served together. `note` writes one line
    into the trial's log; `report` tells progress in [0, 1]; `keep` adds a measurement that a
    technique took to the trial's; `learned` is what core.techniques.training_text has read for
    them.
    """

    case: Case
    engine: Any
    load_baseline: Callable[[], Any]
    tokenizer: Any = None
    device: str = "cpu"
    seed: int = 0
    draft: Any = None
    draft_tokens: int = 0
    batch: int = 1
    note: Callable[[Note], None] = field(default=lambda note: None)
    report: Callable[[float], None] = field(default=lambda share: None)
    keep: Callable[[Measurement], None] = field(default=lambda measurement: None)
    learned: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text: every text that the model reads begins so."""
        if self.case.model.task == "image":
            return ()
        prefix: tuple[int, ...] = self.engine.special_ids.prefix
        return prefix
