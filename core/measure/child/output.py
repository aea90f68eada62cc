"""Reads what a trial's process writes, whatever that is: whole lines, bounded in size, in a queue.

Knows nothing of events.
"""

from __future__ import annotations

import os
import queue
import threading

# What stands in for a line that is longer than any event, and for output that never ends.
TOO_LONG = b"\0too long"
TOO_MUCH = b"\0too much"


class Output:
    """The lines of one pipe, which it closes. A thread reads; when nobody takes the lines, the
    writer waits.
    """

    def __init__(self, pipe: int, line_bytes: int, output_bytes: int) -> None:
        self._pipe = pipe
        self._line_bytes = line_bytes
        self._output_bytes = output_bytes
        self._lines: queue.Queue[bytes | None] = queue.Queue(maxsize=1024)
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="trimtab-read", daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> tuple[list[bytes], bool]:
        """The lines that have come, after at most `seconds`, and whether these are the last; at
        once when the last were taken before.
        """
        lines: list[bytes] = []
        if self._ended:
            return lines, True
        try:
            line = self._lines.get(timeout=seconds)
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
        except queue.Empty:
            return lines, False
        self._ended = True
        return lines, True

    def drain(self, seconds: float) -> list[bytes]:
        """All that is left, once every writer is gone; at most `seconds` are waited for that."""
        lines: list[bytes] = []
        last = False
        while not last:
            more, last = self.take(seconds)
            lines += more
            if not more and not last:
                return lines
        self._thread.join(seconds)
        return lines

    def _read(self) -> None:
        pieces: list[bytes] = []
        length = total = 0
        skipping = False
        while data := self._next():
            total += len(data)
            if total > self._output_bytes:
                skipping = self._skip(TOO_MUCH, skipping)
            if skipping:
                continue
            first, *others = data.split(b"\n")
            pieces.append(first)
            length += len(first)
            for other in others:
                if length > self._line_bytes:
                    break
                self._lines.put(b"".join(pieces))
                pieces, length = [other], len(other)
            if length > self._line_bytes:
                skipping = self._skip(TOO_LONG, skipping)
                pieces = []
        # A line without its end was cut off by a death: its event is in the journal or nowhere.
        self._lines.put(None)
        os.close(self._pipe)

    def _next(self) -> bytes:
        try:
            return os.read(self._pipe, 1 << 16)
        except OSError:
            return b""

    def _skip(self, why: bytes, already: bool) -> bool:
        if not already:
            self._lines.put(why)
        return True
