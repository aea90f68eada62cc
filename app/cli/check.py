"""`trimtab doctor --check-store` and `--rebuild-store`: the store against its journals."""

from __future__ import annotations

import sys

from app.jobs.accept import believed
from app.services import open_kept
from store.copies.verify import differences
from store.health.losses import told
from store.health.recovery import close_sealed, set_aside


def check_store(url: str | None, rebuild: bool) -> int:
    """Print what is damaged, lost or different, now and in the past; 1 when something is now."""
    if rebuild:
        moved = set_aside(url)
        if moved is not None:
            print(f"trimtab: the old store is kept as {moved}", file=sys.stderr)
    store, folder, notices = open_kept(url, every=True)
    try:
        for notice in notices:
            print(f"trimtab: {notice}", file=sys.stderr)
        losses = differences(store, folder, believed)
        for sentence in losses.sentences:
            print(f"trimtab: {sentence}", file=sys.stderr)
    finally:
        close_sealed(store, url, folder)
    studies = f"{losses.studies} {'study' if losses.studies == 1 else 'studies'}"
    journals = f"{losses.journals} {'journal' if losses.journals == 1 else 'journals'}"
    agree = f"{len(losses.sentences)} differ from the store" if losses.sentences else "all agree"
    print(f"{studies} and {journals} in {folder} were read: {agree}")
    for sentence in told(folder):
        print(f"found before: {sentence}")
    return 1 if losses.sentences or (notices and not rebuild) else 0
