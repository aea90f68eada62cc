"""Owns the word for a model's special tokens: where its text starts and where it ends.

Which files say so is core.files.special_ids'. It needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that begin and end a text of one model.

    `start` begins a document, None where the model has no such token. `stops` end greedy or sampled
    text, in the order of the file; a row that has ended is filled up with `pad`. `prefix` and
    `suffix` are what the tokenizer itself puts around a text.
    """

    start: int | None = None
    stops: tuple[int, ...] = ()
    pad: int | None = None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @property
    def adds_start(self) -> bool:
        """Whether the tokenizer puts a start token before a text of its own accord."""
        return bool(self.prefix)

    @property
    def filler(self) -> int:
        """What follows in a row that has ended, as in transformers: `pad`, else the first stop."""
        return self.pad if self.pad is not None else self.stops[0] if self.stops else 0
