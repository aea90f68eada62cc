"""Which function does which command. Imported once the words are understood."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from app import who
from app.cli import elsewhere, store
from app.cli import run as cli_run
from app.cli.apply import apply
from app.cli.commands import COMMANDS, perform
from app.cli.console import here
from app.cli.doctor import doctor
from app.cli.grammar import LISTS
from app.cli.link.remote import server_of
from app.cli.show import listing
from app.services import opened
from core.errors import StoreError
from core.machine.bench import run_kernels
from core.machine.kernel_choice import refusing

FUNCTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "apply": apply,
    "backup": store.backup,
    "bundle": elsewhere.bundle,
    "bench": run_kernels,
    "doctor": doctor,
    "export-parquet": store.export_parquet,
    "restore": store.restore,
}


def dispatch(parsed: argparse.Namespace) -> int:
    """Call the command's function; returns the exit code."""
    with refusing():
        if parsed.command == "serve":
            return _serve(parsed)
        if parsed.command in LISTS:
            return listing(parsed.command, parsed.json)
        if parsed.command in COMMANDS:
            return _in_store(parsed)
        return FUNCTIONS[parsed.command](parsed)


def _serve(parsed: argparse.Namespace) -> int:
    from app.server import serve

    if parsed.user_header is not None:
        os.environ[who.USER_HEADER] = parsed.user_header
    return serve(parsed.port, parsed.store, parsed.host, tuple(parsed.allow_host))


def _in_store(parsed: argparse.Namespace) -> int:
    """A command over the store: the server that has it open does it, else this process."""
    if "who" in parsed:
        parsed.who = who.of_command(parsed.who)
    if parsed.command == "run":
        cli_run.plan(parsed)
    if parsed.command == "ingest" and parsed.folder:
        # A server has another folder to start from.
        parsed.folder = os.path.abspath(parsed.folder)
    console = here(getattr(parsed, "output", ""))
    with server_of(parsed.store) as server:
        if server is not None:
            return server.ask(parsed, console)
    try:
        with opened(parsed.store) as services:
            return perform(parsed, services, console)
    except StoreError:
        if parsed.command == "cancel" and cli_run.ask_to_cancel(parsed):
            return 0
        raise
