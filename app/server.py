"""The server: Streamlit's ASGI application, what lives as long as it, and one JSON route. Draws no
page.

The lifespan opens the store and the supervisor before the first page and gives them back at the
end, so that pages never own anything. `serve()` is what the command line calls.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import logging
import os
import shutil
import socket
import tempfile
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import streamlit as st
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import services
from app.cli_store import HEADER, ROUTE
from app.guard import KnownOrigins
from app.views import common
from core.errors import BadInput, StoreError
from store.backup import back_up

logger = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
HOSTS = ["localhost", "127.0.0.1"]
VIEWS = (
    "home", "plan", "live", "trials", "compare", "tradeoffs", "reports", "trial", "hardware",
)  # fmt: skip
SCRIPT = Path(__file__).parent / "main.py"
CONFIG = Path(__file__).parent.parent / ".streamlit" / "config.toml"
# Kept even where no config.toml is found: loopback, known hosts, no phoning home, no tracebacks in
# the browser.
SAFE: dict[str, Any] = {
    "server.address": ADDRESS,
    "server.allowedHosts": HOSTS,
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
async def lifespan(app: st.App) -> AsyncIterator[dict[str, Any]]:
    """Open the services, take up what a killed server left behind, and close them at the end."""
    opened = await anyio.to_thread.run_sync(services.get_services)
    await anyio.to_thread.run_sync(opened.jobs.recover)
    await anyio.to_thread.run_sync(warm)
    try:
        yield {}
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(services.close_services)


def warm() -> None:
    """Import what the pages need before the first visitor waits for it."""
    for name in VIEWS:
        importlib.import_module(f"app.views.{name}")


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


async def backup(request: Request) -> Response:
    """The whole store as one archive, for `trimtab backup`; 403 for pages of other sites, 409 with
    a sentence when there is nothing to copy."""
    if HEADER not in request.headers:
        return PlainTextResponse(f"only for programs that send {HEADER}", 403)
    opened = services.get_services()
    folder = tempfile.mkdtemp(prefix=".trimtab-backup-", dir=opened.folder.parent)
    archive = Path(folder) / "archive"
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        await anyio.to_thread.run_sync(back_up, opened.store, opened.folder, archive)
    except StoreError as error:
        remove()
        return PlainTextResponse(str(error), 409)
    return FileResponse(archive, background=BackgroundTask(remove))


def version() -> str:
    """The installed version, `unknown` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("trimtab")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def on_script_error(error: Exception) -> bool:
    """The last net, for callbacks: the sentence for the user, the traceback for the log, the page
    stays up."""
    common.explain(error)
    return True


def make_app() -> st.App:
    """The ASGI application."""
    return st.App(
        SCRIPT,
        lifespan=lifespan,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
            Middleware(KnownOrigins, hosts=HOSTS),
            Middleware(SafeHeaders),
        ],
        routes=[Route("/api/health", health), Route(ROUTE, backup)],
        on_script_error=on_script_error,
    )


def options(port: int) -> dict[str, Any]:
    """What Streamlit is told: the safe settings, and the theme of config.toml wherever the server
    is started."""
    return {**_theme(), **SAFE, "server.port": port, "browser.serverPort": port}


def _theme() -> dict[str, Any]:
    """[theme] of the checkout's config.toml as dotted options; empty when there is no checkout."""
    if not CONFIG.is_file():
        return {}
    found: dict[str, Any] = {}

    def walk(prefix: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                walk(f"{prefix}.{name}", value)
            else:
                found[f"{prefix}.{name}"] = value

    walk("theme", tomllib.loads(CONFIG.read_text(encoding="utf-8")).get("theme", {}))
    return found


def serve(port: int = 8501, store_url: str | None = None) -> int:
    """Serve until Ctrl-C; prints the URL. BadInput when the port is taken, StoreError when the
    store is held."""
    check_port(port)
    if store_url is not None:
        os.environ["TRIMTAB_STORE"] = store_url
    # Opened here too, so that a store held by another process is a sentence and not a failed start
    # of the server.
    services.get_services()
    try:
        make_app().run(config=options(port))
    except KeyboardInterrupt:
        # uvicorn has shut down in order and only then hands the signal on.
        return 0
    finally:
        services.close_services()
    return 0


def check_port(port: int) -> None:
    """BadInput when nothing can listen on `port` of the loopback address."""
    if not 0 < port < 65536:
        raise BadInput(f"--port {port}: a port is a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            why = "is already in use" if error.errno == errno.EADDRINUSE else "cannot be used"
            raise BadInput(
                f"port {port} {why}: stop what listens there, or choose another with --port"
            ) from None
