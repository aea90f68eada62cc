"""Who acts here: the name that the events of a command or a page carry."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

from core.errors import BadInput
from core.journal.events import WHO_LIMIT, named

USER = "TRIMTAB_USER"
USER_HEADER = "TRIMTAB_USER_HEADER"


def of_command(name: str | None) -> str:
    """The name given with --as, else TRIMTAB_USER, else this process's user."""
    chosen = os.environ.get(USER, "") if name is None else name
    if name is not None and (not named(name) or len(name) > WHO_LIMIT):
        raise BadInput(f"--as {name!r:.60}: a name is one line of 1 to {WHO_LIMIT} characters")
    return named(chosen) or of_process()


def of_request(headers: Mapping[str, str]) -> str:
    """The name that the reverse proxy put into the header which TRIMTAB_USER_HEADER names, empty
    when it put none there; without such a header this process's user, who alone is known.
    """
    header = os.environ.get(USER_HEADER, "")
    return named(headers.get(header) or "") if header else of_process()


def of_process() -> str:
    """The user of this process, empty when the system has no name for it."""
    try:
        return named(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return ""
