"""The server's side of wire.py: does commands for the command line while it has the store
open.

A command runs in a thread of its own over the server's services. What it prints is sent by the
event loop, so that a command line which does not read holds nobody up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import anyio
import anyio.to_thread

from app.cli.commands import COMMANDS, perform
from app.cli.console import CANCEL, INTERRUPT, Console, Stop
from app.cli.link import wire
from app.services import Services

logger = logging.getLogger(__name__)
_MOST_AT_ONCE = 64
# How long the ends of commands may take when the server stops.
_LAST_WORDS_S = 10.0


@asynccontextmanager
async def answering(services: Services, url: str) -> AsyncIterator[None]:
    """Inside, the command line is answered; `url` is where the pages are. At the end the supervisor
    is closed first, so that the commands that wait for a study can say so.
    """
    place = wire.place(services.url)
    try:
        listening = None if place is None else wire.listen(place)
    except OSError as error:
        logger.warning("the command line cannot be answered while this server runs: %s", error)
        listening = None
    if listening is None or place is None:
        yield
        return
    desk = _Desk(services, url)
    server = await asyncio.start_unix_server(desk.serve, sock=listening, limit=wire.LONGEST)
    try:
        yield
    finally:
        server.close()
        place.unlink(missing_ok=True)
        await anyio.to_thread.run_sync(services.jobs.close)
        await desk.close()


class _Desk:
    """Answers connections."""

    def __init__(self, services: Services, url: str) -> None:
        self._services = services
        self._hello = wire.frame(
            trimtab=wire.version(), protocol=wire.PROTOCOL, pid=os.getpid(), url=url
        )
        self._limiter = anyio.CapacityLimiter(_MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from the greeting to the exit code."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        try:
            if wire.is_trusted(writer.get_extra_info("socket")):
                await self._serve(reader, writer)
        except (OSError, ValueError, asyncio.LimitOverrunError):
            # Gone, or no command line of ours: nobody is there to be told.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """Let the commands end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._hello)
        asked = wire.read(await reader.readline())
        parsed = argparse.Namespace(**asked["request"])
        if parsed.command not in COMMANDS:
            raise ValueError(f"no command {parsed.command!r}")
        caller = _Caller(writer)
        console = Console(
            _Stream(caller, "out"),
            _Stream(caller, "err"),
            bool(asked["terminal"]),
            int(asked["width"]),
            caller.save,
            caller.heeding,
        )
        beside = (asyncio.create_task(caller.hear(reader)), asyncio.create_task(caller.beat()))
        try:
            code = await anyio.to_thread.run_sync(
                self._perform, parsed, console, limiter=self._limiter
            )
        finally:
            for task in beside:
                task.cancel()
        writer.write(wire.frame(exit=code))
        await writer.drain()

    def _perform(self, parsed: argparse.Namespace, console: Console) -> int:
        try:
            code = perform(parsed, self._services, console)
        except ConnectionError:
            return 1
        except Exception as error:
            logger.exception("a command of the command line met what it does not know")
            name = type(error).__name__
            print(f"trimtab: unexpected {name}; the server's log says more", file=console.err)
            code = 1
        console.out.flush()
        console.err.flush()
        return code


class _Caller:
    """The command line at the other end. All but hear() and beat() is called in other threads than
    the event loop's.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._wish = ""
        self._stop: Stop | None = None

    def send(self, data: bytes) -> None:
        """Send it when the other side reads; never waits."""
        self._loop.call_soon_threadsafe(self._write, data)

    def save(self, content: bytes) -> None:
        """Send bytes of a file; waits until most of it is on its way. ConnectionError when the
        other side is gone.
        """

        async def send() -> None:
            self._writer.write(wire.frame(save=content))
            await self._writer.drain()

        asyncio.run_coroutine_threadsafe(send(), self._loop).result()

    @contextmanager
    def heeding(self, stop: Stop) -> Iterator[None]:
        """See Console."""
        with self._lock:
            self._stop, wish = stop, self._wish
        if wish:
            stop(wish)
        try:
            yield
        finally:
            with self._lock:
                self._stop = None

    async def hear(self, reader: asyncio.StreamReader) -> None:
        """Wait for a wish to stop; a command line that is gone wishes to interrupt."""
        wish = ""
        while wish != INTERRUPT:
            try:
                wish = wire.read(await reader.readline()).get("stop", INTERRUPT)
            except (OSError, ValueError):
                wish = INTERRUPT
            if wish not in (CANCEL, INTERRUPT):
                continue
            with self._lock:
                self._wish, stop = wish, self._stop
            if stop is not None:
                # In a thread of its own: the store may be slow.
                threading.Thread(target=stop, args=(wish,), daemon=True).start()

    async def beat(self) -> None:
        """Show that the server lives, while a command takes its time."""
        while True:
            await asyncio.sleep(wire.BEAT_S)
            self._write(wire.frame(beat=1))

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)


class _Stream:
    """Text that a command prints, sent line by line."""

    def __init__(self, caller: _Caller, name: str) -> None:
        self._caller = caller
        self._name = name
        self._lock = threading.Lock()
        self._pieces: list[str] = []

    def write(self, text: str) -> int:
        """Keep it until its line ends."""
        with self._lock:
            self._pieces.append(text)
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        with self._lock:
            text = "".join(self._pieces)
            self._pieces.clear()
        if text:
            with contextlib.suppress(RuntimeError):
                # The loop has ended: the server stops, and nobody listens.
                self._caller.send(wire.frame(**{self._name: text}))
