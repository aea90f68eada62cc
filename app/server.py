"""The server: Streamlit's ASGI application, what lives as long as it, and one JSON route. Draws no
page. Where it listens and under which names it answers is app/hosts.py's business.

The lifespan opens the store and the supervisor before the first page and gives them back at the
end, so that pages never own anything. `serve()` is what the command line calls.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import services
from app.cli.link.remote import server_of
from app.cli.link.serving import answering
from app.cli.link.wire import version
from app.guard import KnownHosts, KnownOrigins
from app.hosts import ADDRESS, LOCAL, Address, address_of
from app.parts import common
from core.errors import StoreError, StoreHeld

logger = logging.getLogger(__name__)
SCRIPT = Path(__file__).parent / "main.py"
CONFIG = Path(__file__).parent.parent / ".streamlit" / "config.toml"
# Kept even where no config.toml is found: loopback, known hosts, no phoning home, no tracebacks in
# the browser.
SAFE: dict[str, Any] = {
    "server.address": ADDRESS,
    "server.allowedHosts": list(LOCAL),
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.enableStaticServing": False,
    "server.maxUploadSize": 20,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "browser.gatherUsageStats": False,
    "browser.serverAddress": "localhost",
    "runner.magicEnabled": False,
}


@asynccontextmanager
async def lifespan(app: st.App, url: str) -> AsyncIterator[dict[str, Any]]:
    """Open the services, take up what a killed server left behind, answer the command line, and
    close the services at the end.
    """
    opened = await anyio.to_thread.run_sync(services.get_services)
    await anyio.to_thread.run_sync(opened.jobs.recover)
    await anyio.to_thread.run_sync(warm)
    try:
        async with answering(opened, url):
            yield {}
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(services.close_services)


def warm() -> None:
    """Import what the pages need before the first visitor waits for it."""
    importlib.import_module("app.main")


class SafeHeaders:
    """Adds to every answer: not to be framed elsewhere, sniffed, or named to other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; only the start of an HTTP answer is changed."""

        async def safe_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "SAMEORIGIN"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, receive, safe_send)


async def health(request: Request) -> JSONResponse:
    """Version, store and the ids of studies that run or wait."""
    running = list(services.get_services().jobs.active())
    store = common.store_place() or "memory:"
    return JSONResponse({"version": version(), "store": store, "running": running})


def on_script_error(error: Exception) -> bool:
    """The last net, for callbacks: the sentence for the user, the traceback for the log, the page
    stays up."""
    common.explain(error)
    return True


def make_app(address: Address) -> st.App:
    """The ASGI application."""
    return st.App(
        SCRIPT,
        lifespan=partial(lifespan, url=address.url),
        middleware=[
            Middleware(KnownHosts, hosts=address.names),
            Middleware(KnownOrigins, hosts=address.names),
            Middleware(SafeHeaders),
        ],
        routes=[Route("/api/health", health)],
        on_script_error=on_script_error,
    )


def options(address: Address) -> dict[str, Any]:
    """What Streamlit is told: the safe settings, and the theme of config.toml wherever the server
    is started."""
    return {
        **_theme(),
        **SAFE,
        "server.address": address.host,
        "server.allowedHosts": list(address.names),
        "server.port": address.port,
        "browser.serverAddress": address.shown,
        "browser.serverPort": address.port,
    }


def _theme() -> dict[str, Any]:
    """[theme] of the checkout's config.toml as dotted options; empty when there is no checkout."""
    if not CONFIG.is_file():
        return {}
    theme: dict[str, Any] = {}

    def walk(prefix: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                walk(f"{prefix}.{name}", value)
            else:
                theme[f"{prefix}.{name}"] = value

    walk("theme", tomllib.loads(CONFIG.read_text(encoding="utf-8")).get("theme", {}))
    return theme


def serve(
    port: int = 8501,
    store_url: str | None = None,
    host: str = ADDRESS,
    allowed: tuple[str, ...] = (),
) -> int:
    """Serve until Ctrl-C; prints the URL, and a warning when others than this machine reach it.
    BadInput when nothing can listen there, StoreError when the store is held.
    """
    address = address_of(host, port, allowed)
    if store_url is not None:
        os.environ["TRIMTAB_STORE"] = store_url
    # Opened here too, so that a store held by another process is a sentence and not a failed start
    # of the server.
    try:
        services.get_services()
    except StoreHeld as held:
        raise _held(held, store_url) from None
    if address.warning:
        sys.stderr.write(f"trimtab: {address.warning}\n")
    try:
        make_app(address).run(config=options(address))
    except KeyboardInterrupt:
        # uvicorn has shut down in order and only then hands the signal on.
        return 0
    finally:
        services.close_services()
    return 0


def _held(held: StoreHeld, store_url: str | None) -> StoreHeld:
    """The sentence for a held store, with the address of the dashboard that holds it."""
    try:
        with server_of(store_url, seconds=5) as server:
            if server is None:
                return held
            return StoreHeld(
                f"the store is open in the dashboard at {server.url} (PID {server.pid}): use that"
                " one, or choose another file with --store or TRIMTAB_STORE",
                server.pid,
            )
    except StoreError:
        return held
