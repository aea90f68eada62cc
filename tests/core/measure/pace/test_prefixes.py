"""What a study kept goes when nobody has added to it for a week."""

from __future__ import annotations

import os
import time
from pathlib import Path

from core.measure.pace.prefixes import KEPT_S, PREFIXES, clear, clear_old


def kept(study: Path, age_s: float) -> Path:
    place = study / PREFIXES
    (place / "key").mkdir(parents=True)
    (study / "study.jsonl").write_text("")
    os.utime(place, times=(time.time() - age_s,) * 2)
    return place


def test_only_what_is_old_goes(tmp_path: Path) -> None:
    old, young = kept(tmp_path / "s-1", KEPT_S + 60), kept(tmp_path / "s-2", KEPT_S - 60)
    clear_old(tmp_path)
    assert not old.exists()
    assert young.is_dir()
    assert (tmp_path / "s-1" / "study.jsonl").exists()


def test_a_study_that_kept_nothing_has_nothing_to_clear(tmp_path: Path) -> None:
    clear(tmp_path / "s-1")
    clear_old(tmp_path / "none")
