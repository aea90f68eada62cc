"""Lets the server that has the store open do a command, and shows here what it says."""

from __future__ import annotations

import argparse
import base64
import contextlib
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from app.cli.console import Console
from app.cli.link import wire
from core.errors import StoreError, StoreHeld

# These go on until a study ends, and stop it when they are stopped.
_STOPPABLE = ("run", "resume", "again")
_SECONDS = 30.0


@contextmanager
def server_of(url: str | None, seconds: float = _SECONDS) -> Iterator[RunningServer | None]:
    """The server that has the store open, None when there is none; StoreError when it is stuck
    (silent for so many seconds) or of another version.
    """
    place = wire.place(url)
    connection = None if place is None else wire.connect(place, seconds)
    if connection is None:
        yield None
        return
    with connection:
        yield RunningServer(connection)


class RunningServer:
    """A connection that has been greeted; `pid` is the server's process, `url` where its pages
    are.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self.pid = wire.peer(connection)[0]
        hello = self._read()
        self.url = str(hello.get("url"))
        theirs, ours = hello.get("trimtab"), wire.version()
        if (theirs, hello.get("protocol")) != (ours, wire.PROTOCOL):
            raise StoreError(
                f"the server that has the store open ({self.url}, PID {self.pid}) is Trimtab"
                f" {theirs}, this is {ours}, and they do not understand each other: stop the"
                " server and start it again"
            )

    def ask(self, parsed: argparse.Namespace, console: Console) -> int:
        """Let the server do a command; returns the exit code. StoreError when it is stuck or ends
        meanwhile.
        """
        words = {key: value for key, value in vars(parsed).items() if key != "store"}
        self._send(request=words, terminal=console.terminal, width=console.width)
        with self._heeding(parsed.command, console):
            while "exit" not in (answer := self._read()):
                if "out" in answer:
                    console.out.write(answer["out"])
                if "err" in answer:
                    print(answer["err"], end="", file=console.err, flush=True)
                if "save" in answer:
                    console.save(base64.b64decode(answer["save"]))
        return int(answer["exit"])

    def _heeding(self, command: str, console: Console) -> AbstractContextManager[None]:
        if command not in _STOPPABLE:
            return nullcontext()
        return console.heeding(lambda wish: self._send(stop=wish))

    def _send(self, **said: Any) -> None:
        # A server that is gone is noticed by what it does not answer.
        with contextlib.suppress(OSError):
            self._connection.sendall(wire.frame(**said))

    def _read(self) -> dict[str, Any]:
        try:
            return wire.read(self._lines.readline(wire.LONGEST))
        except TimeoutError:
            raise StoreHeld(
                f"the server that has the store open (PID {self.pid}) does not answer: wait until"
                " it does, or end that process",
                self.pid,
            ) from None
        except (OSError, ValueError):
            raise StoreError(
                f"the server that had the store open (PID {self.pid}) ended before it had answered;"
                " what it had stored is kept: try again"
            ) from None
