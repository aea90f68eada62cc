"""Where a command of the command line speaks, and how it hears that it shall stop: the streams and
signals of this process, or those of another that asked this one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from core.errors import BadInput

CANCEL, INTERRUPT = "cancel", "interrupt"
Stop = Callable[[str], None]
_WIDE = 10_000


class Writer(Protocol):
    """What text is printed to."""

    def write(self, text: str, /) -> object:
        """Take text."""

    def flush(self) -> object:
        """Let what was taken be read."""


@dataclass(frozen=True)
class Console:
    """`out` takes results, `err` progress and complaints, which is a `terminal` or is not; tables
    are cut at `width` signs. `save` takes the bytes of a file that the user asked for. Inside
    `heeding(stop)`, `stop` is called with CANCEL or INTERRUPT, in a thread of its own.
    """

    out: Writer
    err: Writer
    terminal: bool
    width: int
    save: Callable[[bytes], object]
    heeding: Callable[[Stop], AbstractContextManager[None]]


def here(output: str = "") -> Console:
    """The streams and signals of this process; what is saved goes to the file `output`."""
    width = os.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
    return Console(
        sys.stdout,
        sys.stderr,
        sys.stderr.isatty(),
        width,
        lambda content: write(output, content),
        signals,
    )


def write(output: str, content: bytes) -> None:
    """Write a file and say so; BadInput when it cannot be written."""
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise BadInput(f"-o {output}: cannot be written ({error.strerror})") from None
    sys.stderr.write(f"wrote {output} ({len(content):,} bytes)\n")


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C interrupts and SIGTERM cancels; a second Ctrl-C raises KeyboardInterrupt."""
    wishes = {signal.SIGINT: INTERRUPT, signal.SIGTERM: CANCEL}
    heard: set[int] = set()

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in heard:
            raise KeyboardInterrupt
        heard.add(number)
        # The main thread may hold any lock while it hears a signal.
        threading.Thread(target=stop, args=(wishes[signal.Signals(number)],)).start()

    before = {number: signal.getsignal(number) for number in wishes}
    # Who started us with Ctrl-C ignored, as a shell does in the background, meant it.
    taken = [number for number in wishes if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number] or signal.SIG_DFL)
