"""The clock of a generation that also tells the energy book where prefill ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.engine.serve.generate import GenerationClock

if TYPE_CHECKING:
    from core.measure.energy.meter import Book


class MeteredClock(GenerationClock):
    """A GenerationClock whose first tick ends the prefill.

    The counters are read outside the time stamps: before the start and after the first token's.
    Mark the book with "" when the generation has returned.
    """

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book

    def start(self) -> None:
        """The request arrives: prefill begins."""
        self._book.mark("prefill")
        super().start()

    def tick(self, tokens: int = 1) -> None:
        """`tokens` new tokens per row are there; the first ends the prefill."""
        first = not self.stamps
        super().tick(tokens)
        if first:
            self._book.mark("decode")
