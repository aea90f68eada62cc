"""Plan: choose, see what would be tried and what is predicted, start. Predictions are marked as
such."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from app import planning, services, state, uploads
from app.parts import common, forms, quality_forms, tables, technique_forms, words
from core import metrics, predict, priorities
from core.catalogue import workloads
from core.errors import TrimtabError
from core.plan import Plan
from core.study import Study
from core.techniques.kinds import refuse


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
    st.title("Plan a study", anchor=False)
    cards: dict[str, st.delta_generator.DeltaGenerator] = {}
    wish, refusal = _wish(cards)
    rows: tuple[dict[str, Any], ...] = ()
    if wish is not None:
        try:
            rows = _proposed(wish)
        except TrimtabError as error:
            refusal = words.sentence(error)
            # Said where it was chosen, and in the bar that is always in sight.
            cards[_to_blame(wish)].error(words.plain(refusal), icon=":material/error:")
    st.header("Preview", anchor=False)
    _preview(rows)
    _bar(wish, rows, refusal)


def _to_blame(wish: Wish) -> str:
    """The card whose choice stands against the study: the first without which it could run."""
    task = workloads.resolve(wish.workload_id).task
    least = min(
        (workload for workload in workloads.list_workloads() if workload.task == task),
        key=lambda load: load.prompt_tokens + load.output_tokens,
    )
    for card, without in (
        ("target", replace(wish, target_id="local")),
        ("data", replace(wish, data=())),
        ("techniques", replace(wish, techniques=())),
        ("workload", replace(wish, workload_id=least.id, arrival="")),
    ):
        try:
            _study(without)
        except TrimtabError:
            continue
        return card
    return "target"


def _wish(cards: dict[str, st.delta_generator.DeltaGenerator]) -> tuple[Wish | None, str]:
    """All inputs, in cards, each with a place for an error in `cards`; and why there is no wish."""
    refusal = "Choose a model first."
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True, height="stretch"):
        st.header("Model", anchor=False)
        model = None
        try:
            model = forms.model()
        except TrimtabError as error:
            refusal = words.sentence(error)
            common.explain(error)
    with right, st.container(border=True, height="stretch"):
        st.header("Workload", anchor=False)
        workload = forms.workload(model.task if model else "text")
        arrival = forms.arrival(workload)
        cards["workload"] = st.container()
    with st.container(border=True):
        st.header("Target", anchor=False)
        target = forms.target()
        cards["target"] = st.container()
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
        cards["data"] = st.container()
    with st.container(border=True):
        st.header("Techniques", anchor=False)
        techniques = technique_forms.techniques()
        cards["techniques"] = st.container()
        preset = forms.preset()
    if model is None:
        return None, refusal
    asked = priorities.parse([f"{word}={value:g}" for word, value in weights], limits, margins)
    chosen = tuple(techniques)
    return Wish(model.id, target.id, workload.id, asked, chosen, preset, data, arrival), ""


@st.cache_resource(ttl=60, max_entries=16, show_spinner=False)
def _proposed(wish: Wish) -> tuple[dict[str, Any], ...]:
    """One row of words a plan: refused with its sentence, or predicted."""
    return tuple(_row(plan) for plan in _study(wish)[1])


def _study(wish: Wish) -> tuple[Study, tuple[Plan, ...]]:
    """A new study each time: no two studies may have one id."""
    return planning.plan_study(
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
    refusal = refuse(plan) or predict.fit(plan)
    if refusal is not None:
        return {**row, "refused": refusal}
    predictions = {prediction.metric: prediction for prediction in predict.predict(plan)}
    row["task"] = plan.case.model.task
    # The first three are what a phone shows.
    for name in metrics.listed(f"plan_{plan.case.model.task}"):
        prediction = predictions.get(name)
        # With its interval for a column, and alone for a narrow one.
        row[_heading(name)] = words.reading(prediction)
        row[name] = prediction.value if prediction else None
    origins = sorted({prediction.origin for prediction in predictions.values()} - {"unavailable"})
    return {**row, "Origin": ", ".join(origins) or "unavailable"}


def _heading(name: str) -> str:
    return metrics.metric(name).label


def _bar(wish: Wish | None, rows: tuple[dict[str, Any], ...], refusal: str) -> None:
    """What would run, or why nothing can, beside the button: always in sight."""
    able = sum("refused" not in row for row in rows)
    with (
        st.bottom,
        st.container(
            horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        ),
    ):
        if wish is None or refusal:
            st.markdown(f":material/block: {words.plain(refusal)}", width="stretch")
        else:
            skipped = f", {len(rows) - able} skipped" if able < len(rows) else ""
            asked = f"{wish.model_id} on {wish.target_id}, {wish.workload_id}, {wish.preset} preset"
            st.markdown(
                f"**{able}** trials{skipped} :small[:gray[{words.plain(asked)}]]", width="stretch"
            )
        if (
            st.button(
                "Start the study",
                type="primary",
                icon=":material/play_arrow:",
                key="start",
                disabled=not able,
                help=words.plain(refusal) or None,
            )
            and wish is not None
        ):
            _start(wish)


def _preview(rows: tuple[dict[str, Any], ...]) -> None:
    able = [row for row in rows if "refused" not in row]
    refused = [row for row in rows if "refused" in row]
    if not rows:
        st.caption("What would be tried is shown here once it can run.")
    if able:
        st.caption("Estimates before running, with their range. Measurements will replace them.")
        names = metrics.listed(f"plan_{able[0]['task']}")
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
    opened = services.get_services()
    study, plans = uploads.take_along(opened.folder, *_study(wish))
    study_id = opened.jobs.submit(replace(study, who=common.me()), plans)
    state.flash("The study has started.")
    state.go("live", study=study_id)
