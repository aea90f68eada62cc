"""Charts that a person can read: no label under a whisker, no legend under the toolbar."""

from __future__ import annotations

import pytest

from app.figures import charts
from core.study import Study
from core.verdict.compare import compare


@pytest.mark.parametrize("dark", [False, True])
def test_labels_stand_above_the_bars_and_their_whiskers(synthetic_study: Study, dark: bool) -> None:
    found = compare(synthetic_study.done(), "t-0000")
    for row in found.metrics():
        figure = charts.bars(row, found.columns, dark)
        (bar,) = figure.data
        assert bar.text is None
        known = [cell for cell in row.cells if cell.value is not None]
        labels = figure.layout.annotations
        assert [label.y for label in labels] == list(bar.y) == [cell.trial_id for cell in known]
        for label, cell in zip(labels, known, strict=True):
            assert cell.text in label.text
            assert cell.verdict in label.text
            # A whisker lies in the middle of its bar: the text begins above both.
            assert label.yanchor == "bottom"
            assert label.yshift >= charts.BAR / 2
        # The longest whisker ends inside the axis.
        ends = [x + plus for x, plus in zip(bar.x, bar.error_x.array, strict=True)]
        assert max(ends, default=0) <= figure.layout.xaxis.range[1]
        # So does the next row's label: a row holds a line of text beside its bar.
        assert (
            figure.layout.height / max(len(known), 1)
            >= charts.BAR + 2 * figure.layout.template.layout.font.size
        )


@pytest.mark.parametrize("dark", [False, True])
def test_the_legend_lies_below_and_the_toolbar_above(synthetic_study: Study, dark: bool) -> None:
    shown = charts.points(synthetic_study.done(), "tpot_s", "model_bytes")
    layout = charts.pareto(shown, "tpot_s", "model_bytes", dark=dark).layout.template.layout
    assert (layout.legend.yref, layout.legend.y, layout.legend.yanchor) == (
        "container",
        0,
        "bottom",
    )
    assert charts.CONFIG["displayModeBar"] == "hover"
    # Plotly's toolbar is about 28 pixels high.
    assert layout.margin.t >= 28
