"""Trial: everything that is known of one trial; reached from the other pages, not from the
navigation."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import services, state
from app.views import common, words
from core import format, metrics
from core.compare import configuration
from core.measurement import Measurement
from core.study import Trial

TITLE = "Trial"
ICON = ":material/science:"
HELP = "Everything that is known of one trial."


def page() -> None:
    """Draw the page."""
    state.enter("trial")
    wanted = state.chosen("trial")
    trial = services.get_services().store.trial(wanted) if wanted else None
    if trial is None:
        st.title("Trial", anchor=False)
        said = (
            f"There is no trial {words.plain(wanted)} in this store."
            if wanted
            else "No trial was named."
        )
        common.empty(
            "Nothing to show",
            f"{said} Pick one from the table.",
            "All trials",
            "trials",
            ":material/table_rows:",
        )
        return
    st.title(words.plain(trial.plan.title), anchor=False)
    case = trial.plan.case
    st.markdown(f"{words.badge(trial.state)} {words.plain(trial.reason)}")
    st.caption(
        words.plain(
            f"{case.model.id} on {case.target.id}, {case.workload.id} · {trial.id} · "
            f"{trial.started_at}"
        )
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Compare with others", icon=":material/compare_arrows:", key="to-compare"):
            state.go("compare", study=trial.study_id, trials=_company(trial))
        st.page_link(
            state.page("live"), label="Its study", query_params=state.words(study=trial.study_id)
        )
    _measurements(trial)
    left, right = st.columns(2, gap="medium")
    with left:
        _kernels(trial)
    with right:
        _configuration(trial)
    st.subheader("Log", anchor=False)
    st.code("\n".join(trial.notes) or "This trial wrote nothing.", language=None)


def _company(trial: Trial) -> list[str]:
    study = services.get_services().store.study(trial.study_id)
    base = study.baseline if study else None
    return [base.id, trial.id] if base and base.id != trial.id else [trial.id]


def _measurements(trial: Trial) -> None:
    st.subheader("Numbers", anchor=False)
    if not trial.measurements:
        st.caption("Nothing has been measured.")
        return
    st.dataframe(
        pd.DataFrame([_row(one) for one in trial.measurements]),
        hide_index=True,
        height="content",
        alt="Measurements of this trial",
        column_config={
            "n": st.column_config.TextColumn(width=50),
            "Origin": st.column_config.TextColumn(width=90),
            "Samples": st.column_config.LineChartColumn(
                "Raw samples", help="In the order they were taken.", width=120
            ),
            "How": st.column_config.TextColumn(width=360),
        },
    )


def _row(one: Measurement) -> dict[str, object]:
    low, high = one.interval() or (None, None)
    return {
        "Metric": metrics.metric(one.metric).label,
        "Value": words.number(one.metric, one.value) if one.value is not None else "unavailable",
        "95 % interval": format.interval(one.value, low, high, one.unit, one.metric) or "—",
        "n": str(one.n or "—"),
        "Origin": one.origin,
        "Samples": list(one.samples) if one.n > 2 else None,
        "How": one.method,
    }


def _kernels(trial: Trial) -> None:
    st.subheader("Kernels that ran", anchor=False)
    if not trial.kernels:
        st.caption("None was counted.")
        return
    rows = [{"Operation": one.op, "Kernel": one.name, "Calls": one.calls} for one in trial.kernels]
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, alt="Kernels that ran in this trial", height="content"
    )


def _configuration(trial: Trial) -> None:
    st.subheader("Configuration", anchor=False)
    st.table(
        {
            words.plain(key): words.plain(text)
            for key, text in configuration(trial).items()
            if key != "kernels"
        },
        border="horizontal",
        alt="Configuration of this trial",
    )
