"""Composition root: opens the store once and hands out a small Services record to pages and the
command line.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.jobs.accept import believed
from app.jobs.supervisor import Supervisor
from store.health.recovery import close_sealed, open_checked
from store.interface import Store
from store.place import MEMORY, STORE, default_path, locate, named

_lock = threading.Lock()
_services: Services | None = None


@dataclass(frozen=True)
class Services:
    """What a page may use: the store to read, the supervisor to ask."""

    store: Store
    jobs: Supervisor
    folder: Path
    notices: tuple[str, ...] = ()
    url: str | None = None

    def close(self) -> None:
        """End the supervisor and give the store's file back."""
        self.jobs.close()
        close_sealed(self.store, self.url, self.folder)


def open_services(url: str | None = None) -> Services:
    """Open the store, checked against the journals beside it, and start a supervisor; StoreError
    when another process holds it. `notices` say what was damaged or lost.
    """
    store, folder, notices = open_kept(url)
    return Services(store, Supervisor(store, folder), folder, notices, url)


@contextmanager
def opened(url: str | None = None) -> Iterator[Services]:
    """The services for one command of the command line; what was found damaged or lost is said on
    stderr first.
    """
    services = open_services(url)
    try:
        for notice in services.notices:
            sys.stderr.write(f"trimtab: {notice}\n")
        yield services
    finally:
        services.close()


def open_kept(url: str | None = None, every: bool = False) -> tuple[Store, Path, tuple[str, ...]]:
    """The store, the folder of its journals, and what was found damaged or lost; `every` checks all
    of it, also what has not changed. Close it with close_sealed.
    """
    folder = studies_folder(url)
    store, notices = open_checked(url, folder, believed, every)
    return store, folder, notices


def studies_folder(url: str | None) -> Path:
    """Where the studies of a store keep their journals: beside its file, in the user's data folder
    for a server, or in a temporary folder for `memory:`.
    """
    if named(url) == MEMORY:
        return Path(tempfile.mkdtemp(prefix="trimtab-"))
    place = locate(url)
    if isinstance(place, Path):
        return place.with_name(place.name + ".studies")
    return default_path().parent / f"{place.host or 'server'}-{place.database or 'default'}.studies"


def get_services() -> Services:
    """The process-wide services, opened on first use with the store that TRIMTAB_STORE names."""
    global _services
    with _lock:
        if _services is None:
            _services = open_services(os.environ.get(STORE))
        return _services


def close_services() -> None:
    """End the supervisor and give the store's file back."""
    global _services
    with _lock:
        if _services is not None:
            _services.close()
            _services = None
