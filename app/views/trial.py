"""Trial: everything that is known of one trial; reached from the other pages, not from the
navigation."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import facts, services, state
from app.parts import (
    common,
    environment_facts,
    machines,
    margin_words,
    words,
)
from app.parts.trial import memory_parts, rounds, sensitivity, take_along
from core import metrics
from core.machine import share
from core.measurement import Measurement
from core.study import Trial
from core.verdict import environments
from core.verdict.compare import configuration


def page() -> None:
    """Draw the page."""
    wanted = state.chosen("trial")
    trial = services.get_services().store.trial(wanted) if wanted else None
    if trial is None:
        st.title("Trial", anchor=False)
        sentence = (
            f"There is no trial {words.plain(wanted)} in this store."
            if wanted
            else "No trial was named."
        )
        common.empty(
            "Nothing to show",
            f"{sentence} Pick one from the table.",
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
            f"{case.model.id} on {machines.place(trial)}, {case.workload.id} · {trial.id} · "
            f"{trial.started_at and trial.started_at + ' UTC'}{words.by(trial.who)}"
        )
    )
    machines.head((trial,))
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Compare with others", icon=":material/compare_arrows:", key="to-compare"):
            state.go("compare", study=trial.study_id, trials=_company(trial))
        st.page_link(
            state.page("live"), label="Its study", query_params=state.words(study=trial.study_id)
        )
    _warnings(trial)
    _shares(trial)
    margin_words.draw(trial)
    _measurements(*common.at_baseline((trial,)))
    memory_parts.draw(trial)
    sensitivity.draw(trial)
    rounds.draw(trial)
    left, right = st.columns(2, gap="medium")
    with left:
        _kernels(trial)
    with right:
        _configuration(trial)
    take_along.draw(trial)
    _environments(trial)
    st.header("Log", anchor=False)
    st.code("\n".join(trial.notes) or "No log.", language=None, wrap_lines=True)


def _company(trial: Trial) -> list[str]:
    base = _baseline(trial)
    return [base.id, trial.id] if base and base.id != trial.id else [trial.id]


def _baseline(trial: Trial) -> Trial | None:
    study = services.get_services().store.study(trial.study_id)
    return study.baseline if study else None


def _warnings(trial: Trial) -> None:
    """What disturbed this trial, and in what its environment differs from its baseline's."""
    base = _baseline(trial)
    beside = (base, trial) if base is not None and base.id != trial.id else (trial,)
    known = facts.facts_of(services.get_services().store, beside)
    ran = {"the baseline" if side is base else "this trial": side for side in beside}
    ids = {name: side.environments for name, side in ran.items()}
    own = [
        f"{caution.text[:1].upper()}{caution.text[1:]}." for caution in environments.cautions(trial)
    ]
    common.caveats((*environments.unlike(ids, known, "This trial and its baseline"), *own))


def _shares(trial: Trial) -> None:
    """How near this trial came to the limits of the machine, as bars with a sentence."""
    known = [measurement for name in share.NAMES if (measurement := trial.metric(name)) is not None]
    if not known:
        return
    st.header("Share of the limit", anchor=False)
    elsewhere = bool(machines.marks_of((trial,)))
    for measurement, place in zip(known, st.columns(len(known), gap="medium"), strict=True):
        with place.container(border=True, height="stretch"):
            _share(measurement, elsewhere)


def _share(measurement: Measurement, elsewhere: bool) -> None:
    label = metrics.metric(measurement.metric).label
    if measurement.value is None:
        st.markdown(f"**{words.plain(label)}**: unavailable")
        if share.needs_calibration(measurement) and elsewhere:
            st.caption("The machine it ran on had not been calibrated.")
            return
        st.caption(words.plain(f"{measurement.method[:1].upper()}{measurement.method[1:]}."))
        if share.needs_calibration(measurement):
            st.page_link(state.page("hardware"), label="Calibrate", icon=":material/speed:")
        return
    st.progress(
        min(max(measurement.value, 0.0), 1.0),
        text=f"**{words.plain(share.sentence(measurement))}**",
    )
    spread = words.reading(measurement)
    over = (
        " More than was calibrated: the calibration was disturbed, repeat it on a quiet machine."
        if measurement.value > 1.05
        else ""
    )
    st.caption(
        words.plain(f"{label} {spread}, {measurement.origin}. {measurement.method}.{over}"),
        help=metrics.metric(measurement.metric).meaning,
    )


def _environments(trial: Trial) -> None:
    """The facts of where it ran, closed until asked for."""
    store = services.get_services().store
    for identifier, content in facts.facts_of(store, (trial,)).items():
        with st.expander(f"Environment {words.plain(identifier)}", icon=":material/memory:"):
            if content:
                environment_facts.table(content)
            else:
                st.caption("Nothing is recorded of it.")


def _measurements(trial: Trial) -> None:
    st.header("Numbers", anchor=False)
    if not trial.measurements:
        st.caption("Nothing has been measured.")
        return
    plain = [measurement for measurement in trial.measurements if not measurement.condition]
    st.dataframe(
        pd.DataFrame([_row(item) for item in plain]),
        hide_index=True,
        height="content",
        alt="Measurements of this trial",
        column_config={
            "n": st.column_config.TextColumn(width=50),
            "Origin": st.column_config.TextColumn(width=90),
            "Samples": st.column_config.LineChartColumn(
                "Raw samples", help="In the order they were taken.", width=120
            ),
            "Metric": st.column_config.TextColumn(pinned=True),
            "How": st.column_config.TextColumn(width=360),
            "Meaning": st.column_config.TextColumn(width=360),
        },
    )


def _row(measurement: Measurement) -> dict[str, object]:
    return {
        **words.measurement_row(measurement),
        "Samples": list(measurement.samples) if measurement.n > 2 else None,
        "How": measurement.method,
        "Meaning": metrics.metric(measurement.metric).meaning,
    }


def _kernels(trial: Trial) -> None:
    st.header("Kernels that ran", anchor=False)
    if not trial.kernels:
        st.caption("None was counted.")
        return
    rows = [
        {"Operation": kernel.op, "Kernel": kernel.name, "Calls": kernel.calls}
        for kernel in trial.kernels
    ]
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, alt="Kernels that ran in this trial", height="content"
    )


def _configuration(trial: Trial) -> None:
    st.header("Configuration", anchor=False)
    st.table(
        {
            # A digest is known by its beginning; 64 digits would scroll.
            words.plain(key): words.plain(f"{text[:12]}…" if key == "revision" else text)
            for key, text in configuration(trial).items()
            if key != "kernels"
        },
        border="horizontal",
        alt="Configuration of this trial",
    )
