"""Plan: choose, see what would be tried and what is predicted, start. Predictions are marked as
such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import services, state, uploads
from app.views import common, forms, quality_forms, tables, technique_forms, words
from core import metrics, predict, priorities
from core.plan import Plan
from core.study import Study

TITLE = "Plan"
ICON = ":material/edit_note:"
HELP = "Choose model, target, workload and priorities; see what would be tried before it runs."

# The first three are what a phone shows.
PREDICTED = {
    "text": ("tpot_s", "ttft_s", "model_bytes", "peak_bytes"),
    "image": ("latency_p95_s", "examples_per_s", "model_bytes", "peak_bytes"),
}


@dataclass(frozen=True)
class Wish:
    """What the page was told, as one hashable value, so that a preview is computed once."""

    model_id: str
    target_id: str
    workload_id: str
    priorities: priorities.Priorities
    techniques: tuple[str, ...]
    preset: str
    data: tuple[str, ...] = ()
    arrival: str = ""


def page() -> None:
    """Draw the page."""
    state.enter("plan")
    st.title("Plan a study", anchor=False)
    wish = _wish()
    st.header("Preview", anchor=False)
    if wish is None:
        st.caption("Choose a model to see what would be tried.")
        return
    _preview(wish)


def _wish() -> Wish | None:
    """All inputs, in cards."""
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True, height="stretch"):
        st.header("Model", anchor=False)
        with common.sentences():
            model = None
            model = forms.model()
    with right, st.container(border=True, height="stretch"):
        st.header("Workload", anchor=False)
        workload = forms.workload(model.task if model else "text")
        arrival = forms.arrival(workload)
    with st.container(border=True):
        st.header("Target", anchor=False)
        target = forms.target()
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True, height="stretch"):
        st.header("What matters", anchor=False)
        weights = forms.weights()
    with right, st.container(border=True, height="stretch"):
        st.header("Hard limits", anchor=False)
        limits: list[str] = []
        with common.sentences():
            limits = forms.limits(model.task if model else "text")
        margins: list[str] = []
        with common.sentences():
            margins = quality_forms.margins(model.task if model else "text")
    with st.container(border=True):
        st.header("Quality data", anchor=False)
        data = quality_forms.data(model)
    with st.container(border=True):
        st.header("Techniques", anchor=False)
        techniques = technique_forms.techniques()
        preset = forms.preset()
    if model is None:
        return None
    asked = priorities.parse([f"{word}={value:g}" for word, value in weights], limits, margins)
    words = tuple(techniques)
    return Wish(model.id, target.id, workload.id, asked, words, preset, data, arrival)


@st.cache_resource(ttl=60, max_entries=16, show_spinner=False)
def _proposed(wish: Wish) -> tuple[dict[str, Any], ...]:
    """One row of words a plan: refused with its sentence, or predicted."""
    return tuple(_row(plan) for plan in _study(wish)[1])


def _study(wish: Wish) -> tuple[Study, tuple[Plan, ...]]:
    """A new study each time: no two studies may have one id."""
    return services.plan_study(
        wish.model_id,
        wish.target_id,
        wish.workload_id,
        wish.priorities,
        wish.techniques,
        wish.preset,
        data=wish.data,
        arrival=wish.arrival,
    )


def _row(plan: Plan) -> dict[str, Any]:
    row: dict[str, Any] = {"Plan": plan.title}
    refusal = plan.refuse() or predict.fit(plan)
    if refusal is not None:
        return {**row, "refused": refusal}
    found = {one.metric: one for one in predict.predict(plan)}
    row["task"] = plan.case.model.task
    for name in PREDICTED[plan.case.model.task]:
        one = found.get(name)
        # With its interval for a column, and alone for a narrow one.
        row[_heading(name)], row[name] = words.reading(one), one.value if one else None
    origins = sorted({one.origin for one in found.values() if one.origin != "unavailable"})
    return {**row, "Origin": ", ".join(origins) or "unavailable"}


def _heading(name: str) -> str:
    return metrics.metric(name).label


def _preview(wish: Wish) -> None:
    rows = _proposed(wish)
    able = [row for row in rows if "refused" not in row]
    refused = [row for row in rows if "refused" in row]
    counted = f"**{len(able)}** trials would run"
    counted += f", {len(refused)} are refused beforehand." if refused else "."
    asked = f"{wish.model_id} on {wish.target_id}, {wish.workload_id}, {wish.preset} preset"
    with (
        st.bottom,
        st.container(
            horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        ),
    ):
        st.markdown(f"{counted} :small[:gray[{words.plain(asked)}]]", width="content")
        if st.button(
            "Start the study",
            type="primary",
            icon=":material/play_arrow:",
            key="start",
            disabled=not able,
        ):
            _start(wish)
    if able:
        st.caption(
            "Predicted before anything has run, with the range that the model of the machine "
            "allows; the study replaces these by measurements."
        )
        names = PREDICTED[able[0]["task"]]
        tables.draw(
            "preview",
            [{key: row[key] for key in ("Plan", "Origin", *map(_heading, names))} for row in able],
            [{"Plan": row["Plan"], **tables.numbers(names[:3], row.get)} for row in able],
            "Plans with predicted speed and memory",
            tables.help_of(names, _heading),
        )
    if refused:
        st.header("Refused", anchor=False)
        for row in refused:
            st.markdown(
                f":material/block: **{words.plain(row['Plan'])}**: {words.plain(row['refused'])}"
            )


def _start(wish: Wish) -> None:
    found = services.get_services()
    study, plans = uploads.take_along(found.folder, *_study(wish))
    study_id = found.jobs.submit(study, plans)
    state.flash("The study has started.")
    state.go("live", study=study_id)
