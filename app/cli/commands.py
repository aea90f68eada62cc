"""The commands over an open store. The command line does them itself, or a running server does them
for it: these functions are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from app.cli import elsewhere
from app.cli import run as cli_run
from app.cli import show as cli_show
from app.cli import store as cli_store
from app.cli.console import Console
from app.services import Services
from core.errors import TrimtabError
from core.machine.kernel_choice import refusing

COMMANDS: dict[str, Callable[[argparse.Namespace, Services, Console], int]] = {
    "studies": cli_show.studies,
    "show": cli_show.show,
    "compare": cli_show.compare_trials,
    "report": cli_show.report,
    "run": cli_run.run,
    "resume": cli_run.resume,
    "again": cli_run.again,
    "cancel": cli_run.cancel,
    "archive": cli_store.archive,
    "ingest": elsewhere.ingest_folder,
    "planned": elsewhere.planned,
}


def perform(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Do a command; returns the exit code. What stood in its way is said, and is 2."""
    try:
        with refusing():
            return COMMANDS[parsed.command](parsed, services, console)
    except TrimtabError as error:
        print(f"trimtab: {error}", file=console.err)
        return 2
