"""The chart of the Hardware page: bytes a second over the size that is read. Computes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from app.figures.marks import escape
from app.figures.palette import Palette, palette, template
from core import format
from core.machine.calibration.record import Calibration

HEIGHT = 320
GB_TICKS = [step * 10**power for power in range(-1, 5) for step in (1, 2, 5)]


def reading(calibration: Calibration, caches: Mapping[str, int], dark: bool) -> go.Figure:
    """Reading rate over array size, both logarithmic; the caches' sizes as dotted lines.

    The line is the best of the repetitions, the whiskers reach down to the lower quarter.
    """
    colors = palette(dark)
    shown = calibration.reading()
    figure = go.Figure(
        go.Scatter(
            x=[rate.size for rate in shown],
            y=[rate.best / 1e9 for rate in shown],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0.0 for _ in shown],
                "arrayminus": [(rate.best - rate.low) / 1e9 for rate in shown],
                "color": colors.whisker,
                "thickness": 1.5,
                "width": 4,
            },
            mode="lines+markers",
            line={"color": colors.series[0], "width": 2.5},
            marker={"size": 8},
            customdata=[
                [
                    format.binary(rate.size),
                    format.number(rate.best, "B/s"),
                    format.number(rate.median, "B/s"),
                    rate.n,
                ]
                for rate in shown
            ],
            hovertemplate="%{customdata[0]} read again and again<br>best %{customdata[1]}"
            "<br>median %{customdata[2]} of %{customdata[3]}<extra></extra>",
            showlegend=False,
        )
    )
    inside = [rate.size for rate in shown]
    for name, size in caches.items():
        if inside and inside[0] <= size <= inside[-1]:
            _cache(figure, name, size, colors)
    ticks = [size for size in (2**power for power in range(10, 41, 2)) if _within(size, inside)]
    figure.update_layout(
        template=template(dark),
        height=HEIGHT,
        xaxis={
            "type": "log",
            "title": {"text": "Bytes that are read again and again"},
            "tickvals": ticks,
            "ticktext": [format.binary(size) for size in ticks],
        },
        yaxis={
            "type": "log",
            "title": {"text": "GB/s"},
            "tickvals": GB_TICKS,
            "ticktext": [f"{tick:g}" for tick in GB_TICKS],
        },
    )
    return figure


def _within(size: int, inside: list[int]) -> bool:
    return bool(inside) and inside[0] / 2 <= size <= inside[-1] * 2


def _cache(figure: go.Figure, name: str, size: int, colors: Palette) -> None:
    """A dotted line at a cache's size, named above the plot."""
    figure.add_shape(
        type="line",
        x0=size,
        x1=size,
        y0=0,
        y1=1,
        yref="paper",
        line={"color": colors.muted, "width": 1, "dash": "dot"},
    )
    figure.add_annotation(
        # A shape takes the number itself, an annotation its logarithm.
        x=math.log10(size),
        y=1.0,
        yref="paper",
        yanchor="bottom",
        text=escape(f"{name} {format.binary(size)}"),
        font={"size": 12, "color": colors.muted},
        showarrow=False,
    )
