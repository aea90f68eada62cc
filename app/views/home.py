"""Home: what Trimtab is, the last studies, and the first study with one button."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app import planning, services, state
from app.parts import common, machines, reference_study, words
from core.priorities import Priorities
from store.interface import StudySummary

SHOWN = 6


def page() -> None:
    """Draw the page."""
    summaries = common.studies()
    st.title("Make a model cheap enough for where it must run", anchor=False)
    st.markdown(
        "Trimtab **really applies** quantization, pruning, distillation, speculative decoding and "
        "batching to your model, **really runs** each version here, and keeps the numbers. Each "
        "number says where it comes from, how sure it is, and which kernels ran, so that a team "
        "can decide and still know why half a year later."
    )
    with st.container(horizontal=True):
        if st.button(
            "Run the first study" if not summaries else "Run the example study",
            type="primary" if not summaries else "secondary",
            icon=":material/rocket_launch:",
            key="first-study",
            help="The bundled pycode model on this machine, chat, quick preset.",
        ):
            start_first_study()
        if st.button(
            "Plan a study",
            type="primary" if summaries else "secondary",
            icon=":material/edit_note:",
            key="home-plan",
        ):
            state.go("plan")
    if not summaries:
        _steps()
        reference_study.draw()
        return
    st.header("Last studies", anchor=False)
    places = machines.places(summaries[:SHOWN])
    for summary in summaries[:SHOWN]:
        _card(summary, places[summary.id])
    if len(summaries) > SHOWN:
        st.caption(
            f"{len(summaries) - SHOWN} older ones can be picked on Live, Compare and Trade-offs."
        )
    reference_study.draw()


def start_first_study() -> None:
    """Queue the bundled example and open Live."""
    study, plans = planning.plan_study("pycode", "local", "chat", Priorities(), (), "quick", 0)
    study_id = services.get_services().jobs.submit(replace(study, who=common.me()), plans)
    state.flash("The study has started.")
    state.go("live", study=study_id)


def _steps() -> None:
    """What happens when there is nothing yet."""
    st.caption(
        "No study yet. The first one needs no download: it takes the bundled model pycode and "
        "this machine, and ends after a few minutes."
    )
    steps = (
        (
            ":material/edit_note:",
            "Plan",
            "Choose a model, a target and what matters to you. See predictions first.",
        ),
        (
            ":material/monitor_heart:",
            "Run",
            "Every plan is applied and measured in its own process. Watch it live.",
        ),
        (
            ":material/compare_arrows:",
            "Compare",
            "Side by side with intervals: better, worse, or within noise.",
        ),
        (
            ":material/description:",
            "Keep",
            "A recommendation with reasons, and a report that others can open.",
        ),
    )
    with st.grid(4, min_column_width=200, gap="medium"):
        for icon, title, text in steps:
            with st.container(border=True, height="stretch", gap="xsmall"):
                st.markdown(f"{icon} **{title}**")
                st.caption(text)


def _card(summary: StudySummary, place: str) -> None:
    where = words.plain(f"{place}, {summary.workload_id}")
    title = f"**{words.plain(summary.model_id)}** on {where}"
    if place != summary.target_id:
        title += f" {machines.ELSEWHERE}"
    failed = f", {summary.failed} failed" if summary.failed else ""
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        with st.container(gap=None):
            st.markdown(f"{title} {words.badge(summary.state)}")
            reason = f" · {summary.reason}" if summary.reason else ""
            counted = f"{summary.ended} of {summary.trials} trials ended{failed}"
            when = words.ago(summary.created_at) + words.by(summary.who)
            st.caption(words.plain(f"{counted} · {summary.preset} preset · {when}{reason}"))
        here = state.words(study=summary.id, trials=())
        watch = "Watch" if summary.state in words.ACTIVE else "Log"
        watch = "Resume" if summary.state == "paused" else watch
        with st.container(horizontal=True, width="content"):
            for name, label in (
                ("live", watch),
                ("tradeoffs", "Trade-offs"),
                ("compare", "Compare"),
            ):
                st.page_link(state.page(name), label=label, query_params=here)
