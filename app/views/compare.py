"""Compare: trials side by side, judged against a baseline.

The judging is core.verdict.compare's; here it is asked for and shown.
"""

from __future__ import annotations

import streamlit as st

from app import reports as exports
from app import state
from app.figures import charts
from app.parts import common, machines, pick, side_by_side, tables
from app.parts.side_by_side import DIAGNOSTICS
from core import metrics
from core.study import Study, Trial
from core.verdict import compare as judged
from core.verdict.comparison import Comparison, Row


def page() -> None:
    """Draw the page."""
    st.title("Compare", anchor=False)
    picked = pick.trials("compare")
    if picked is None:
        return
    study, trials, baseline_id = picked
    facts = common.environments(trials)
    comparison = judged.compare(
        common.at_baseline(trials),
        baseline_id,
        {environment_id: common.facts(text) for environment_id, text in facts},
        study.priorities.margins,
    )
    machines.head(trials)
    common.caveats(comparison.warnings)
    _table(comparison)
    _bars(comparison)
    _take_away(study, trials, baseline_id)


def _table(comparison: Comparison) -> None:
    """The comparison as a real table: readable by screen readers, printable, copyable."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        text = st.text_input(
            "Search rows",
            key=state.key("search"),
            type="search",
            placeholder="size, kernel, batch",
            width=260,
            live="300ms",
        )
        differing = st.toggle("Only rows that differ", key=state.key("differing"))
        details = st.toggle(
            "Details",
            key=state.key("details"),
            help="Intervals, counts, origins and definitions in the table, not only on hover.",
        )
    state.keep("search", text)
    state.keep("differing", differing)
    state.keep("details", details)
    wanted = text.casefold().split()
    fits = [row for row in comparison.rows if all(word in _searchable(row) for word in wanted)]
    rows = [row for row in fits if row.differs or not differing]
    if not rows:
        st.caption("No row fits. Clear the search, or show rows that are the same too.")
        return
    for title, kind in (("Results", "metric"), ("Configuration", "setting")):
        shown = [row for row in rows if row.kind == kind and row.group not in DIAGNOSTICS]
        if shown:
            st.header(title, anchor=False)
            alt = f"{title} of the compared trials, one column a trial"
            side_by_side.draw(shown, comparison.columns, details, alt)
    rest = [row for row in rows if row.group in DIAGNOSTICS]
    if rest:
        with st.expander("Diagnostics", icon=":material/troubleshoot:"):
            st.caption("How the trials went; no plan is judged by it.")
            side_by_side.draw(
                rest, comparison.columns, details, "Diagnostics of the compared trials"
            )
    hidden = len(fits) - len(rows)
    if hidden:
        st.caption(f"{hidden} rows where all trials are alike are hidden.")


def _searchable(row: Row) -> str:
    meaning = metrics.metric(row.key).meaning if row.kind == "metric" else ""
    return f"{row.key} {row.label} {row.group} {meaning}".casefold()


def _bars(comparison: Comparison) -> None:
    """One metric as bars with intervals; the table above is its twin."""
    rows = {
        row.key: row
        for row in comparison.metrics()
        if any(cell.value is not None for cell in row.cells)
    }
    if not rows:
        return
    st.header("Chart", anchor=False)
    names = list(rows)
    spread = [row.key for row in rows.values() if any(cell.low is not None for cell in row.cells)]
    drawn = metrics.listed("compare_chart")
    usual = next((name for name in drawn if name in spread), (spread or names)[0])
    name = st.selectbox(
        "Metric",
        names,
        key=state.key("bars", names, usual),
        width=300,
        format_func=lambda key: rows[key].label,
    )
    state.keep("bars", name)
    row = rows[name]
    st.plotly_chart(
        charts.bars(row, comparison.columns, common.dark()),
        config=charts.CONFIG,
        theme=None,
        key="bars-chart",
        alt=f"{row.label} of each compared trial with its interval, as in the table above",
    )
    tables.explain(name)


def _take_away(study: Study, trials: tuple[Trial, ...], baseline_id: str) -> None:
    with st.container(horizontal=True):
        if st.button("Save as a report", type="primary", icon=":material/save:", key="to-report"):
            state.go(
                "reports",
                trials=[trial.id for trial in trials],
                baseline=baseline_id,
                study=study.id,
            )
        st.download_button(
            "Download CSV",
            lambda: exports.export(
                pick.report(study, trials, baseline_id, "Comparison", ""), "csv"
            ),
            "trimtab-comparison.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key="csv",
        )
        if st.button("Trade-offs", icon=":material/scatter_plot:", key="to-tradeoffs"):
            state.go("tradeoffs", trials=[trial.id for trial in trials], study=study.id)
