"""Where a study keeps the prefixes of plans that its trials share (core.artefacts.prefix), and when
they go: with the study's end, or after a week when nobody resumed it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

# In a study's folder, beside the journals.
PREFIXES = "prefixes"
KEPT_S = 7 * 86_400.0


def clear(study: Path) -> None:
    """Remove what the study in this folder kept."""
    shutil.rmtree(study / PREFIXES, ignore_errors=True)


def clear_old(studies: Path) -> None:
    """Remove what studies kept that have not added to it for KEPT_S."""
    for place in studies.glob(f"*/{PREFIXES}"):
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > KEPT_S:
                clear(place.parent)
