"""A small deal of the figure: every kind is in its list, a few dozen are dealt here."""

from __future__ import annotations

from tests.evidence.files import folders


def test_damaged_folders_are_refused_or_harmless_and_sound_ones_load() -> None:
    verdicts = folders.run(60, seed=3)
    assert len(verdicts) == 60 + len(folders.SOUNDS)
    assert [one for one in verdicts if one.wrong] == []
    assert all(one.outcome == "accepted" for one in verdicts if one.kind == "untouched")


def test_there_are_many_kinds() -> None:
    assert len(folders.KINDS) >= 200
