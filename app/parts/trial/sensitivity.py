"""On the trial page: how sensitive each matrix is at each precision, and what was chosen."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app.figures import charts
from app.figures.palette import palette, template
from app.parts import common, words
from core import format
from core.measurement import Measurement
from core.study import Trial

METRIC = "sensitivity_kl"
CHOSEN = "chosen_bits"
# Below this the arithmetic of the kernels moves the answers as much.
FLOOR = 1e-6
# More columns than this have no room for a name each.
NAMED = 40
# From what costs nothing to what costs most, away from the page's own colour step by step.
LIGHT = [(0.0, "#edf2f6"), (0.35, "#9ecae1"), (0.7, "#2a7fb8"), (1.0, "#08264a")]
DARK = [(0.0, "#1d262e"), (0.35, "#1f5d86"), (0.7, "#56b4e9"), (1.0, "#f2f7c9")]
# Stands for a matrix that was left as it was.
DENSE = 16


def draw(trial: Trial) -> None:
    """The section, where a technique scored the matrices."""
    scores = trial.curve(METRIC)
    cells = read(scores)
    if not cells:
        return
    chosen = {
        str(point.condition.value): int(point.value or DENSE) for point in trial.curve(CHOSEN)
    }
    st.header("Sensitivity", anchor=False)
    st.caption(
        "What rounding one matrix alone costs, by precision: KL to the unchanged model in nats a "
        "token (an image, for classifiers). Dots mark what was chosen. "
        + words.plain(f"{scores[0].origin.capitalize()}: {scores[0].method}.")
    )
    st.plotly_chart(
        figure(cells, chosen, common.dark()),
        config=charts.CONFIG,
        theme=None,
        key="sensitivity-chart",
        alt="Sensitivity of each matrix at each precision, as in the table below",
    )
    with st.expander("As a table", icon=":material/table:"):
        st.dataframe(
            table(cells, chosen), hide_index=True, height="content", alt="Sensitivity by matrix"
        )


def read(scores: tuple[Measurement, ...]) -> dict[str, dict[int, float]]:
    """KL by matrix, in the model's order, and bits."""
    cells: dict[str, dict[int, float]] = {}
    for score in scores:
        if score.condition.bits is not None and score.value is not None:
            cells.setdefault(str(score.condition.value), {})[score.condition.bits] = score.value
    return cells


def table(cells: dict[str, dict[int, float]], chosen: dict[str, int]) -> pd.DataFrame:
    """A row a matrix, a column a precision."""
    widths = _widths(cells)
    return pd.DataFrame(
        [
            {
                "Matrix": name,
                **{f"{bits} bit": format.plain(row.get(bits)) for bits in widths},
                "Chosen": _bits(chosen[name]) if name in chosen else "—",
            }
            for name, row in cells.items()
        ]
    )


def figure(
    cells: dict[str, dict[int, float]], chosen: dict[str, int], dark: bool = False
) -> go.Figure:
    """A heat map: matrices across in the model's order, precision up, log10 of the KL as colour."""
    colors, names, widths = palette(dark), list(cells), _widths(cells)
    rows = [*widths, DENSE] if DENSE in chosen.values() else widths
    logs = [[_log(cells[name].get(bits)) for name in names] for bits in widths]
    known = [value for row in logs for value in row if value is not None]
    low, high = math.floor(min(known)), math.ceil(max(known))
    ticks = list(range(low, max(high, low + 1) + 1))
    chart = go.Figure(
        go.Heatmap(
            z=logs,
            x=list(range(len(names))),
            y=[str(bits) for bits in widths],
            zmin=ticks[0],
            zmax=ticks[-1],
            xgap=1,
            ygap=1,
            colorscale=DARK if dark else LIGHT,
            colorbar={
                "title": {"text": "KL, nats", "side": "right", "font": {"size": 13}},
                "tickvals": ticks,
                "ticktext": [_power(tick) for tick in ticks],
                "outlinewidth": 0,
                "thickness": 12,
                "tickfont": {"color": colors.muted},
            },
            text=[
                [
                    f"{charts.escape(name)}, {bits} bit: {_told(cells[name].get(bits))}"
                    for name in names
                ]
                for bits in widths
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    picked = [(at, chosen[name]) for at, name in enumerate(names) if chosen.get(name) in rows]
    chart.add_trace(
        go.Scatter(
            x=[at for at, _ in picked],
            y=[str(bits) for _, bits in picked],
            mode="markers",
            name="Chosen",
            marker={
                "size": 7 if len(names) > NAMED else 12,
                "color": colors.paper,
                "line": {"width": 2, "color": colors.ink},
            },
            hovertext=[f"{charts.escape(names[at])}: {_bits(bits)} chosen" for at, bits in picked],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    values, texts = _columns(names)
    chart.update_layout(
        template=template(dark),
        height=360,
        margin={"l": 64, "r": 24, "t": 12, "b": 56},
        showlegend=False,
        xaxis={
            "tickvals": values,
            "ticktext": texts,
            "tickangle": -60 if len(names) <= NAMED else 0,
            "showgrid": False,
            "title": {"text": "Matrix, from the input to the head"},
            "range": [-0.5, len(names) - 0.5],
        },
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [str(bits) for bits in rows],
            "range": [-0.5, len(rows) - 0.5],
            "showgrid": False,
            "title": {"text": "Bits"},
        },
    )
    return chart


def _columns(names: list[str]) -> tuple[list[int], list[str]]:
    """Positions and labels of the columns: each matrix by name, or each layer where it begins."""
    if len(names) <= NAMED:
        return list(range(len(names))), [charts.escape(_short(name), 24) for name in names]
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        parts = [part for part in name.split(".") if part.isdecimal()]
        first.setdefault(parts[0] if parts else name, at)
    return list(first.values()), [charts.escape(choice, 24) for choice in first]


def _short(name: str) -> str:
    """`layers.3.gate_up` as `3 gate_up`."""
    parts = name.split(".")
    return f"{parts[1]} {parts[2]}" if len(parts) == 3 and parts[0] == "layers" else name


def _power(exponent: int) -> str:
    """0.1 as it is, smaller ones as 10⁻⁴."""
    if exponent >= -2:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _bits(bits: int) -> str:
    return "left as it was" if bits == DENSE else f"{bits} bit"


def _widths(cells: dict[str, dict[int, float]]) -> list[int]:
    return sorted({bits for row in cells.values() for bits in row})


def _log(value: float | None) -> float | None:
    return None if value is None else math.log10(max(value, FLOOR))


def _told(value: float | None) -> str:
    return "unknown" if value is None else f"{format.plain(value)} nats"
