"""Keeps studies, trials, measurements and reports. Importing it opens nothing and imports no
database.
"""

from __future__ import annotations

from store.interface import Store, StudySummary, TrialFilter, TrialProgress
from store.memory import MemoryStore
from store.place import MEMORY, locate, named

__all__ = ["Store", "StudySummary", "TrialFilter", "TrialProgress", "open_store"]


def open_store(url: str | None = None) -> Store:
    """The store at `url`: a file name, `duckdb:///PATH`, `postgresql://...`, or `memory:`, which
    keeps nothing.

    Without `url` the variable TRIMTAB_STORE counts, else a file in the user's data folder. An older
    store is upgraded after a copy was made. StoreError says why it cannot be opened: held by
    another process, no DuckDB file, too new.
    """
    if named(url) == MEMORY:
        return MemoryStore()
    from store.migrate import open_current
    from store.repository import SqlStore

    place = locate(url)
    return SqlStore(place, open_current(place))
