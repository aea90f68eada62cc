"""The figure of methods: each technique's settings joined by a line, told apart by colour and mark.

Stored text reaches a figure only through escape(); every point's customdata is its trial's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from app.figures.marks import ChartPoint, add_marks, escape, make_axis
from app.figures.palette import palette, template
from core.plan import Plan

HEIGHT = 560
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down")


def method_of(plan: Plan) -> str:
    """The names of a plan's techniques without their settings; `baseline` when there is none."""
    return " + ".join(technique.name for technique in plan.techniques) or "baseline"


def methods(
    shown: Sequence[ChartPoint],
    method: Mapping[str, str],
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    dark: bool = False,
) -> go.Figure:
    """`y` over `x`, one line for each method (by trial id) from its smallest `x` to its largest.

    An estimated or projected point is hollow.
    """
    colors = palette(dark)
    across = make_axis(x, [(p.x, p.x_bounds) for p in shown], (), log_x)
    up = make_axis(y, [(p.y, p.y_bounds) for p in shown], (), log_y)
    figure = go.Figure()
    names = sorted({method[p.trial_id] for p in shown}, key=lambda name: (name != "baseline", name))
    for number, name in enumerate(names):
        line = sorted((p for p in shown if method[p.trial_id] == name), key=lambda p: p.x)
        ink = colors.series[number % len(colors.series)]
        symbol = SYMBOLS[number % len(SYMBOLS)]
        dash = DASHES[number // len(colors.series) % len(DASHES)]
        if len(line) > 1:
            figure.add_trace(
                go.Scatter(
                    x=[p.x / across.factor for p in line],
                    y=[p.y / up.factor for p in line],
                    mode="lines",
                    line={"color": ink, "width": 1.4, "dash": dash},
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        for solid in (True, False):
            part = [p for p in line if (p.origin == "measured") == solid]
            if part:
                label = escape(name, 34) if solid else f"{escape(name, 34)} (not measured)"
                mark = (symbol, None) if solid else (f"{symbol}-open", "solid")
                add_marks(figure, part, across, up, label, mark, [ink] * len(part), colors)
    figure.update_layout(
        template=template(dark), height=HEIGHT, xaxis=across.layout(), yaxis=up.layout()
    )
    return figure
