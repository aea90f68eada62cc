"""The three presets: each longer than the one before, an unknown one refused."""

from __future__ import annotations

from itertools import pairwise

import pytest

from core.errors import BadInput
from core.planner.presets import PRESETS, preset


def test_presets_grow_in_every_respect() -> None:
    rows = [PRESETS[name] for name in ("quick", "standard", "deep")]
    for less, more in pairwise(rows):
        assert less.repeats < more.repeats
        assert less.seconds < more.seconds
        assert less.windows * less.window < more.windows * more.window
        assert less.distill_steps < more.distill_steps
        assert less.wall_s < more.wall_s


def test_every_preset_gives_enough_rounds_for_an_interval() -> None:
    for one in PRESETS.values():
        assert one.repeats >= 3
        assert one.windows >= 3
        assert one.seconds < one.wall_s
        assert preset(one.name) is one


@pytest.mark.parametrize("name", ["", "QUICK", "fast", "quick "])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadInput, match="known presets: quick, standard, deep"):
        preset(name)
