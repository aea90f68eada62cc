"""The record of what was ever found damaged or lost: a text file beside the journals, so that each
loss is told once and can be looked up later.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from core import disk
from core.ids import now

FILE = "losses.log"
HELD = "the store still holds what was said there"
LOST = "what was said there is lost"


class Losses:
    """Sentences of the form "what; what it means", dated, one a line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._told = set(told(folder))

    def tell(self, what: str, means: str, again: bool = False) -> list[str]:
        """The sentence in a list of one; an empty list when it was told before, unless `again`, or
        when it is said to be held though it was told to be lost.
        """
        what = " ".join(what.replace(";", ",").split())
        sentence = f"{what}; {means}"
        known = {sentence, f"{what}; {LOST}"} if means == HELD else {sentence}
        if not again and known & self._told:
            return []
        self._told.add(sentence)
        # A disk that takes no more words must not keep the store shut: they are told all the same.
        with contextlib.suppress(OSError):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                disk.write_all(handle, f"{now()} {sentence}\n".encode("utf-8", "replace"))
            finally:
                os.close(handle)
        return [sentence]

    def hold_no_more(self) -> list[str]:
        """The store that held what journals had lost is gone: say so of each."""
        held = [line.removesuffix(f"; {HELD}") for line in self._told if line.endswith(f"; {HELD}")]
        return [sentence for what in sorted(held) for sentence in self.tell(what, LOST)]


def told(folder: Path) -> list[str]:
    """All sentences so far, oldest first, without their dates."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.partition(" ")[2] for line in text.splitlines() if line]
