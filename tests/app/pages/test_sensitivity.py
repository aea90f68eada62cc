"""The picture of sensitivities: cells, dots, names, and the table beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app.parts.trial import sensitivity
from core.condition import matrix
from core.condition import read as read_condition
from core.measurement import Measurement
from core.study import Study, Trial

MAIN = Path(__file__).parents[3] / "app" / "main.py"
HOSTILE = "<b>x</b>"


def scored(name: str, bits: int, value: float) -> Measurement:
    condition = matrix(name, bits)
    return Measurement(
        "sensitivity_kl", (value,), "nat", "estimated", "![m](x)", condition=condition
    )


def chosen(name: str, bits: int) -> Measurement:
    return Measurement(
        "chosen_bits", (float(bits),), "bit", "measured", "why", condition=matrix(name)
    )


NAMES = ("layers.0.qkv", "layers.0.down", "layers.1.qkv", "head")
CELLS = {name: {2: 0.5 / (i + 1), 4: 0.0, 8: 1e-5} for i, name in enumerate(NAMES)}


def test_colours_are_logarithms_and_nothing_is_coloured_where_nothing_is_known() -> None:
    cells = {**CELLS, "head": {2: 0.1}}
    heat, dots = sensitivity.figure(cells, {"layers.0.qkv": 4, "head": 16}).data
    assert list(heat.y) == ["2", "4", "8"]
    assert heat.z[0][0] == pytest.approx(-0.30103)
    # 0 is drawn as the floor.
    assert heat.z[1][0] == -6
    assert heat.z[2][3] is None
    assert heat.text[2][3] == "head, 8 bit: unknown"
    assert list(zip(dots.x, dots.y, strict=True)) == [(0, "4"), (3, "16")]
    assert "left as it was" in dots.hovertext[1]


@pytest.mark.parametrize("dark", [False, True])
def test_the_row_of_unchanged_matrices_is_there_only_where_one_is(dark: bool) -> None:
    without = sensitivity.figure(CELLS, {"head": 8}, dark)
    assert without.layout.yaxis.categoryarray == ("2", "4", "8")
    beside = sensitivity.figure(CELLS, {"head": 16}, dark)
    assert beside.layout.yaxis.categoryarray == ("2", "4", "8", "16")


def test_many_columns_are_named_by_layer() -> None:
    cells = {
        **{f"layers.{i}.{part}": {4: 0.1} for i in range(30) for part in ("qkv", "o", "down")},
        "head": {4: 0.2},
    }
    axis = sensitivity.figure(cells, {}).layout.xaxis
    assert axis.tickvals[:3] == (0, 3, 6)
    assert axis.ticktext[1] == "1"
    assert axis.ticktext[-1] == "head"
    few = sensitivity.figure(CELLS, {}).layout.xaxis
    assert few.ticktext == ("0 qkv", "0 down", "1 qkv", "head")


def test_names_from_the_store_are_escaped() -> None:
    figure = sensitivity.figure({HOSTILE: {4: 0.1}}, {HOSTILE: 4})
    assert HOSTILE not in str(figure.to_plotly_json())


def test_one_value_and_equal_values_still_have_a_scale() -> None:
    figure = sensitivity.figure({"a": {4: 0.0}, "b": {4: 0.0}}, {})
    heat = figure.data[0]
    assert heat.zmin < heat.zmax


def test_conditions_of_another_form_are_left_out() -> None:
    rows = (scored("a", 4, 0.1), replace(scored("a", 4, 0.1), condition=read_condition("a/nf4")))
    assert sensitivity.read(rows) == {"a": {4: 0.1}}


def test_the_table_says_the_same() -> None:
    frame = sensitivity.table(CELLS, {"layers.0.qkv": 4, "head": 16})
    assert list(frame.columns) == ["Matrix", "2 bit", "4 bit", "8 bit", "Chosen"]
    assert list(frame["Chosen"]) == ["4 bit", "—", "—", "left as it was"]
    assert frame["2 bit"][0] == "0.500"


def test_the_trial_page_shows_it_where_it_was_measured(
    fill: Callable[[Study], None], synthetic_study: Study
) -> None:
    rows = [scored(name, bits, value) for name, row in CELLS.items() for bits, value in row.items()]

    def more(trial: Trial) -> Trial:
        if trial.id != "t-0001":
            return trial
        extra = (*rows, chosen("head", 8))
        return replace(trial, measurements=(*trial.measurements, *extra))

    fill(replace(synthetic_study, trials=tuple(map(more, synthetic_study.trials))))
    at = page("t-0001")
    assert "Sensitivity" in [one.value for one in at.header]
    assert not any("![m]" in one.value for one in at.caption)
    assert any("Chosen" in one.value.columns for one in at.dataframe)
    assert "Sensitivity" not in [one.value for one in page("t-0000").header]


def page(trial: str) -> AppTest:
    """The trial's page as its URL would show it."""
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.query_params["trial"] = trial
    at._page_hash = calc_hash("trial")
    at.run()
    assert not at.exception
    return at
