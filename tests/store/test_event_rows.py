"""Every kind of event has its rows, and nobody but its owner spells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.journal.events import CONTENTS
from store.event_rows import ROWS

ROOT = Path(__file__).parents[2]


def test_every_kind_of_event_has_its_rows() -> None:
    assert set(ROWS) == set(CONTENTS.values())


@pytest.mark.parametrize("kind", [kind for kind in CONTENTS if "-" in kind])
def test_only_the_owner_spells_a_kind(kind: str) -> None:
    owner = ROOT / "core" / "journal" / "events.py"
    files = [path for room in ("app", "core", "store") for path in (ROOT / room).rglob("*.py")]
    spelt = [path for path in files if f'"{kind}"' in path.read_text(encoding="utf-8")]
    assert spelt == [owner]
