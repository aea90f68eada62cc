"""The commands that copy a whole store: backup, restore, export-parquet.

A store that a server has open is copied by the server, which hands the archive over (`archive`).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.cli.console import Console, here
from app.cli.link.remote import RunningServer, server_of
from app.services import Services, opened, studies_folder
from core import format as formats
from core.errors import BadInput, StoreError, StoreHeld
from store.copies import parquet
from store.copies.backup import DATABASE, BackupManifest, back_up, receive, restore_to, unpack
from store.place import MEMORY, locate, named

_PIECE = 1 << 20


def backup(parsed: argparse.Namespace) -> int:
    """Write the whole store and its journals to one file."""
    target = Path(parsed.file)
    _file(parsed.store, "a server keeps its own backups: use pg_dump")
    whom = ""
    with server_of(parsed.store) as server:
        if server is not None:
            manifest = receive(target, partial(_fetch, server))
            whom = f", made by the dashboard (PID {server.pid})"
        else:
            with _alone(parsed.store) as services:
                manifest = back_up(services.store, services.folder, target)
    size = formats.number(target.stat().st_size, "B")
    print(f"wrote {target} ({size}): {_contents(manifest)}{whom}", file=sys.stderr)
    return 0


def restore(parsed: argparse.Namespace) -> int:
    """Put a backup into an empty store."""
    place = _file(parsed.store, "a backup is restored to a file; for a server there is pg_restore")
    manifest = restore_to(Path(parsed.file), place, studies_folder(parsed.store))
    print(f"restored {place}: {_contents(manifest)}, as of {manifest.made_at}", file=sys.stderr)
    return 0


def export_parquet(parsed: argparse.Namespace) -> int:
    """Write every table of the store to a Parquet file."""
    folder = Path(parsed.folder)
    with server_of(parsed.store) as server:
        if server is not None:
            with tempfile.TemporaryDirectory(prefix="trimtab-export-") as inside:
                archive = Path(inside) / "archive"
                _fetch(server, archive)
                unpack(archive, Path(inside), only=DATABASE)
                rows = parquet.export_file(Path(inside) / DATABASE, folder)
        else:
            with _alone(parsed.store) as services:
                rows = parquet.export(services.store, folder)
    print(f"wrote {folder}: {len(rows)} tables, {sum(rows.values()):,} rows", file=sys.stderr)
    return 0


def archive(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Hand the whole store over as one archive, in pieces."""
    with tempfile.TemporaryDirectory(prefix=".trimtab-backup-", dir=services.folder.parent) as temp:
        path = Path(temp) / "archive"
        back_up(services.store, services.folder, path)
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                console.save(piece)
    return 0


@contextmanager
def _alone(url: str | None) -> Iterator[Services]:
    """The services here; StoreHeld names a program that has the store and makes no copies."""
    try:
        with opened(url) as services:
            yield services
    except StoreHeld as held:
        raise StoreHeld(
            f"the store {_file(url, '')} is in use by PID {held.pid}, which is no dashboard that"
            " could make a copy of it: wait until that process ends, or stop it",
            held.pid,
        ) from None


def _file(url: str | None, otherwise: str) -> Path:
    """The file of the store; BadInput when it is none."""
    if named(url) == MEMORY:
        raise BadInput("a store in memory keeps nothing: name a store's file with --store")
    place = locate(url)
    if not isinstance(place, Path):
        raise BadInput(f"--store: {otherwise}")
    return place


def _fetch(server: RunningServer, target: Path) -> None:
    """Let the server write an archive to `target`; StoreError when it cannot."""
    complaints = io.StringIO()
    with open(target, "xb") as file:
        console = replace(here(), err=complaints, save=file.write)
        code = server.ask(argparse.Namespace(command="archive"), console)
        file.flush()
        os.fsync(file.fileno())
    if code:
        why = complaints.getvalue().strip().removeprefix("trimtab: ")
        raise StoreError(f"the dashboard (PID {server.pid}) made no copy of the store: {why}")


def _contents(manifest: BackupManifest) -> str:
    rows = manifest.rows
    return (
        f"{rows.get('studies', 0):,} studies, {rows.get('measurements', 0):,} measurements, "
        f"{rows.get('reports', 0):,} report versions, {manifest.journals:,} journals"
    )
