"""The commands that copy a whole store: backup, restore, export-parquet.

A store that a dashboard holds is copied by the dashboard: it hands the archive out on its loopback
address (app/server.py), and the command line finds it by the process that holds the store.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path

from app.cli_show import reading
from app.services import studies_folder
from core import format as formats
from core.errors import BadInput, StoreError, StoreHeld
from store import parquet
from store.backup import DATABASE, Manifest, back_up, receive, restore_to, unpack
from store.engine import locate

ROUTE = "/api/backup"
# Only a program sends this: a page of another site, shown by the browser, may not.
HEADER = "X-Trimtab"
_SECONDS = 600


def backup(parsed: argparse.Namespace) -> int:
    """Write the whole store and its journals to one file."""
    target = Path(parsed.file)
    place = _file(parsed.store, "a server keeps its own backups: use pg_dump")
    whom = ""
    try:
        with reading(parsed.store) as store:
            manifest = back_up(store, studies_folder(parsed.store), target)
    except StoreHeld as held:
        pid = held.pid
        manifest = receive(target, lambda part: _fetch(pid, place, part))
        whom = f", made by the dashboard (PID {pid})"
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
    try:
        with reading(parsed.store) as store:
            rows = parquet.export(store, folder)
    except StoreHeld as held:
        with tempfile.TemporaryDirectory(prefix="trimtab-export-") as inside:
            archive = Path(inside) / "archive"
            _fetch(held.pid, _file(parsed.store, ""), archive)
            unpack(archive, Path(inside), only=DATABASE)
            rows = parquet.export_file(Path(inside) / DATABASE, folder)
    print(f"wrote {folder}: {len(rows)} tables, {sum(rows.values()):,} rows", file=sys.stderr)
    return 0


def _file(url: str | None, otherwise: str) -> Path:
    """The file of the store; BadInput when it is none."""
    given = url or os.environ.get("TRIMTAB_STORE")
    if given == "memory:":
        raise BadInput("a store in memory keeps nothing: name a store's file with --store")
    place = locate(given)
    if not isinstance(place, Path):
        raise BadInput(f"--store: {otherwise}")
    return place


def _fetch(pid: int, place: Path, target: Path) -> None:
    """Let the process that holds the store write an archive; StoreError when it is no dashboard."""
    for port in _ports(pid):
        base = f"http://127.0.0.1:{port}"
        try:
            with _get(f"{base}/api/health", 5) as answer:
                if json.load(answer).get("store") != str(place):
                    continue
            with _get(base + ROUTE, _SECONDS) as answer, open(target, "xb") as file:
                while block := answer.read(1 << 20):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            return
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            raise StoreError(
                f"the dashboard (PID {pid}) made no copy of the store: {said}"
            ) from None
        except (OSError, ValueError, AttributeError):
            continue
    raise StoreHeld(
        f"the store {place} is in use by PID {pid}, which is no dashboard that could make a copy of"
        " it: wait until that process ends, or stop it",
        pid,
    )


def _ports(pid: int) -> list[int]:
    """Where a process listens on this machine only; empty when it may not be asked."""
    import psutil

    try:
        found = psutil.Process(pid).net_connections(kind="tcp4")
    except (psutil.Error, OSError):
        return []
    listening = (one.laddr for one in found if one.status == psutil.CONN_LISTEN)
    return sorted({address.port for address in listening if address.ip == "127.0.0.1"})


def _get(url: str, seconds: float) -> HTTPResponse:
    # No proxy may come between a machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer = opener.open(urllib.request.Request(url, headers={HEADER: "1"}), timeout=seconds)
    assert isinstance(answer, HTTPResponse)
    return answer


def _contents(manifest: Manifest) -> str:
    rows = manifest.rows
    return (
        f"{rows.get('studies', 0):,} studies, {rows.get('measurements', 0):,} measurements, "
        f"{rows.get('reports', 0):,} report versions, {manifest.journals:,} journals"
    )
