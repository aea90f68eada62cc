"""Colours and the Plotly template of the charts, light and dark; pages and reports look alike.

Series colours are those of Okabe & Ito (2008), told apart with every common colour blindness.
"""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Palette:
    """`series` are blue, vermilion or orange, green, purple, sky or yellow in this order."""

    ink: str
    muted: str
    paper: str
    grid: str
    whisker: str
    forbidden: str
    series: tuple[str, ...]


LIGHT = Palette(
    ink="#1c2530",
    muted="#5f6b78",
    paper="#ffffff",
    grid="#e6eaef",
    whisker="rgba(28,37,48,0.42)",
    forbidden="rgba(213,94,0,0.08)",
    series=("#0072b2", "#c25400", "#00795a", "#b0568a", "#56b4e9"),
)
DARK = Palette(
    ink="#e8ecf1",
    muted="#8a96a5",
    paper="#14191f",
    grid="#29313b",
    whisker="rgba(232,236,241,0.45)",
    forbidden="rgba(230,159,0,0.10)",
    series=("#56b4e9", "#e69f00", "#2fbf94", "#d98cb8", "#f0e442"),
)


def palette(dark: bool) -> Palette:
    """The colours of a theme."""
    return DARK if dark else LIGHT


def template(dark: bool) -> go.layout.Template:
    """Calm lines, transparent background; the legend below, where no toolbar covers it."""
    colors = palette(dark)
    axis = {
        "gridcolor": colors.grid,
        "linecolor": colors.grid,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "tickcolor": colors.grid,
        "ticklen": 5,
        "title": {"font": {"size": 13, "color": colors.ink}, "standoff": 12},
        "tickfont": {"size": 12, "color": colors.muted},
        "automargin": True,
        "separatethousands": True,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": colors.ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(colors.series),
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 64, "r": 24, "t": 32, "b": 56},
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "font": {"size": 12},
                "bgcolor": "rgba(0,0,0,0)",
            },
            "hoverlabel": {
                "bgcolor": colors.paper,
                "bordercolor": colors.grid,
                "font": {"family": FONT, "size": 13, "color": colors.ink},
                "align": "left",
            },
            "hovermode": "closest",
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": colors.muted,
                "activecolor": colors.ink,
            },
        }
    )
