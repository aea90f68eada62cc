"""weight-int8 and weight-int4 are names for settings of rtn: the same codes, but a key, a title and
settings of their own, as plans of every release have them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core import techniques
from core.errors import BadInput
from core.journal import codec
from core.plan import label, settings

NAMES = {
    "weight-int8": "rtn:bits=8,group_size=0,symmetric=1,granularity=channel",
    "weight-int4": "rtn:bits=4,group_size=32,symmetric=0",
    "weight-int4:group_size=128": "rtn:bits=4,group_size=128,symmetric=0",
}


@pytest.mark.parametrize("k", [32, 96, 200, 256])
@pytest.mark.parametrize(("name", "spelled_out"), NAMES.items())
def test_the_codes_are_those_of_the_settings(name: str, spelled_out: str, k: int) -> None:
    torch.manual_seed(k)
    weight = torch.randn(33, k)
    weight[0], weight[1, 3] = 0.0, 40.0
    ours: Any = techniques.parse(name)
    same: Any = techniques.parse(spelled_out)
    form, wanted = ours.form(weight), same.form(weight)
    assert torch.equal(form.codes, wanted.codes)
    assert torch.equal(form.scale, wanted.scale)
    assert (form.zero is None) == (wanted.zero is None)
    assert form.zero is None or torch.equal(form.zero, wanted.zero)
    assert form.format == wanted.format


def test_weight_int8_gives_the_largest_magnitude_of_a_row_the_lowest_code() -> None:
    """127 or 128 steps: 128, towards the side on which the largest value is."""
    eight: Any = techniques.parse("weight-int8")
    form = eight.form(torch.tensor([[1.0, -4.0, 2.0, 0.5], [4.0, -1.0, 2.0, 0.5]]).repeat(1, 8))
    assert form.codes[:, :4].tolist() == [[160, 0, 192, 144], [0, 160, 64, 112]]
    assert form.scale.flatten().tolist() == [4 / 128, -4 / 128]


def test_the_names_keep_what_stores_and_journals_hold_of_them() -> None:
    eight, four = techniques.parse("weight-int8"), techniques.parse("weight-int4:group_size=64")
    assert settings(eight) == {"name": "weight-int8"}
    assert settings(four) == {"name": "weight-int4", "group_size": 64}
    assert codec.to_data(four) == {"technique": "weight-int4", "group_size": 64}
    assert codec.from_data(codec.to_data(four)) == four
    assert (label(eight), label(four)) == ("weight-int8", "weight-int4(group_size=64)")
    assert eight != techniques.parse(NAMES["weight-int8"])


def test_what_a_name_fixes_cannot_be_set() -> None:
    with pytest.raises(BadInput, match=r"weight-int8 has no setting 'bits'; it has: none"):
        techniques.parse("weight-int8:bits=4")
    with pytest.raises(BadInput, match=r"no setting 'symmetric'; it has: group_size"):
        techniques.parse("weight-int4:symmetric=1")
    with pytest.raises(BadInput, match="one of 32, 64, 128"):
        techniques.parse("weight-int4:group_size=0")


def test_both_names_are_listed_as_names_of_rtn() -> None:
    assert techniques.ALIASES == {"weight-int8": "rtn", "weight-int4": "rtn"}
    assert techniques.ALIASES.keys() <= techniques.BY_NAME.keys()
