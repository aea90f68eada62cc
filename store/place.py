"""Where a store is: which file or server a URL names, and whether a file may be written. Opens
nothing and imports no database.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

WAY_OUT = "choose another file with --store or TRIMTAB_STORE"
MEMORY = "memory:"
STORE = "TRIMTAB_STORE"


def default_path() -> Path:
    """The store's file in the user's data folder."""
    folder = os.environ.get("XDG_DATA_HOME") or ""
    base = Path(folder) if os.path.isabs(folder) else Path.home() / ".local" / "share"
    return base / "trimtab" / "trimtab.duckdb"


def named(url: str | None) -> str:
    """What `url`, else TRIMTAB_STORE, says; empty when neither says anything."""
    return url or os.environ.get(STORE) or ""


def file_of(url: str | None) -> Path | None:
    """The store's file; None for a server and for a store that keeps nothing. StoreError as in
    locate.
    """
    place = None if named(url) == MEMORY else locate(url)
    return place if isinstance(place, Path) else None


def locate(url: str | None) -> Path | URL:
    """The file or the server that `url`, else TRIMTAB_STORE, else the default names; StoreError on
    anything else.
    """
    name = named(url)
    if not name:
        return default_path()
    if name.startswith("duckdb:///"):
        name = name.removeprefix("duckdb:///")
    elif "://" in name:
        return _server(name)
    if "\0" in name or not name.strip() or name == ":memory:":
        raise StoreError(
            f"the store {name!r} is not a file name: {WAY_OUT}, or use memory: to keep nothing"
        )
    if "?" in name:
        # DuckDB would put the log of such a file elsewhere.
        raise StoreError(f"the store {name!r} has a question mark in its name: {WAY_OUT}")
    return Path(os.path.abspath(os.path.expanduser(name)))


def _server(name: str) -> URL:
    from sqlalchemy import exc
    from sqlalchemy.engine import make_url

    try:
        url = make_url(name)
        if url.get_backend_name() != "postgresql":
            raise StoreError(
                f"the store's URL begins with {url.drivername!r}: "
                "use a file name, duckdb:///PATH, postgresql://... or memory:"
            )
        url.get_dialect()
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(no_driver("the store's URL", error)) from None
    except (exc.ArgumentError, ValueError):
        raise StoreError(
            "the store's URL cannot be read: use a file name, duckdb:///PATH, postgresql://..."
        ) from None
    return url


def no_driver(what: str, error: Exception) -> str:
    """The sentence for `what` when its driver is missing."""
    return (
        f"{what} needs a driver that is not installed ({error}): "
        "install it with pip install 'trimtab[postgres]'"
    )


def name_of(place: Path | URL) -> str:
    """How messages name the store: no password."""
    return str(place) if isinstance(place, Path) else place.render_as_string(hide_password=True)


def why_read_only(place: Path | URL) -> str:
    """Why a store that is there can be read and not written, in a sentence; empty when it can, or
    when that shows at the first connection.
    """
    if not isinstance(place, Path) or not os.access(place, os.R_OK) or not place.is_file():
        return ""
    locked = next((path for path in (place, place.parent) if not os.access(path, os.W_OK)), None)
    if locked is None:
        return ""
    return (
        f"the store {place} can only be read, because {locked} may not be written: copy the file"
        f" and the folder {place.name}.studies to a place of your own and name that with --store"
    )
