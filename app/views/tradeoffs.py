"""Trade-offs: what one gives up for what, and the trial that the study's priorities recommend, in
sentences."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app import services, state
from app.figures import charts, methods
from app.parts import common, machines, tables, words
from app.planning import plan_again
from core import metrics
from core.study import Study, Trial
from core.verdict.anchor import anchored
from core.verdict.frontier import frontier
from core.verdict.recommend import Recommendation, recommend
from core.verdict.robust import words as firm
from core.verdict.robust.firmness import robustness

# A role in the table: of the two axes alone, where the choice looks at all priorities.
BEATEN = "beaten on these axes"


def page() -> None:
    """Draw the page."""
    st.title("Trade-offs", anchor=False)
    summary = common.pick_study("Trade-offs need measured trials. ")
    study = common.study_of(summary) if summary else None
    if study is None:
        return
    study = anchored(study)
    only = [trial for trial in study.done() if trial.id in state.chosen("trials")]
    if only:
        _only(len(only), len(study.done()))
    shown = tuple(only) or study.done()
    names = [
        metric.name
        for metric in metrics.METRICS
        if sum(trial.value(metric.name) is not None for trial in shown) > 0
    ]
    if not names:
        common.empty(
            "No measured trial yet",
            "Numbers appear here while the study runs.",
            "Watch it",
            "live",
            ":material/monitor_heart:",
        )
        return
    machines.head(shown)
    common.warn(shown)
    advice = recommend(study)
    left, right = st.columns([5, 3], gap="medium")
    with right:
        _advice(study, advice)
    with left:
        x, y = _axes(names, study.case.model.task)
        drawn, best = _chart(study, shown, x, y, advice)
    _table(drawn, x, y, best, advice)


def _only(count: int, total: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Showing the {count} selected of {total} measured trials.", width="content")
        st.button(
            "Show all",
            key="all-trials",
            type="tertiary",
            icon=":material/close:",
            on_click=state.forget,
            args=("trials",),
        )


def _advice(study: Study, advice: Recommendation) -> None:
    """The recommended trial with reasons, the others with why not."""
    with st.container(border=True):
        trial = study.trial(advice.trial_id) if advice.trial_id else None
        if trial is None:
            st.markdown(":material/rule: **No trial can be recommended**")
        else:
            word, icon = ("Recommended", "recommend") if advice.proven else ("Leading", "pending")
            st.markdown(f":material/{icon}: {word}: **{words.plain(trial.plan.title)}**")
        elsewhere = machines.elsewhere(study.done())
        if advice.again and elsewhere:
            st.caption(
                f"To measure the leading trials again, do so on {words.plain(elsewhere)}: "
                f"`trimtab bundle {study.id} -o study.zip` writes their plan."
            )
        elif advice.again and st.button(
            f"Measure the top {len(advice.again)} again",
            type="primary",
            icon=":material/replay:",
            key="measure-again",
            help="A new, more thorough study of these plans alone; on the command line: "
            f"`trimtab again {study.id}`",
        ):
            _again(study)
        st.markdown("\n".join(f"- {words.plain(reason)}" for reason in advice.because))
        weights = ", ".join(
            f"{word} {weight:g}" for word, weight in study.priorities.weights if weight
        )
        limits = ", ".join(map(words.limit_words, study.priorities.limits)) or "none"
        st.caption(words.plain(f"Weights: {weights}. Hard limits: {limits}."))
        titles = {other.id: other.plan.title for other in study.trials}
        others = [(titles.get(trial_id, trial_id), reason) for trial_id, reason in advice.rejected]
        if others:
            with st.expander(
                f"Why not the other {len(others)}" if trial else "Why not", icon=":material/help:"
            ):
                st.caption("The trials that nothing beats on all priorities together.")
                st.markdown(
                    "\n".join(
                        f"- **{words.plain(name)}**: {words.plain(reason)}"
                        for name, reason in others
                    )
                )
        told = firm.sentences(study, trial, robustness(study, trial)) if trial is not None else ()
        if told:
            with st.expander("What would change the choice", icon=":material/tune:"):
                st.markdown("\n".join(f"- {words.plain(sentence)}" for sentence in told))
        if trial is not None:
            with st.container(horizontal=True):
                base = study.baseline
                if (
                    base is not None
                    and base.id != trial.id
                    and st.button(
                        "Compare with the baseline",
                        icon=":material/compare_arrows:",
                        key="compare-best",
                    )
                ):
                    state.go(
                        "compare", study=study.id, trials=[base.id, trial.id], baseline=base.id
                    )
                if st.button("Details", icon=":material/science:", key="details-best"):
                    state.go("trial", trial=trial.id)


def _again(parent: Study) -> None:
    """Queue the leading trials once more and watch them."""
    with common.sentences():
        study, plans = plan_again(parent)
        services.get_services().jobs.submit(replace(study, who=common.me()), plans)
        state.flash("The leading trials are queued again, measured more thoroughly.")
        state.go("live", study=study.id)


def _axes(names: list[str], task: str) -> tuple[str, str]:
    usual_x, usual_y = (
        next((name for name in metrics.listed(place) if name in names), names[0])
        for place in ("tradeoff_cost", f"tradeoff_{task}")
    )
    with st.grid(2, min_column_width=170, gap="small"):
        x = st.selectbox("Across", names, key=state.key("x", names, usual_x), format_func=_label)
        y = st.selectbox("Up", names, key=state.key("y", names, usual_y), format_func=_label)
    with st.container(horizontal=True):
        log_x = st.toggle("Log across", key=state.key("logx"))
        log_y = st.toggle("Log up", key=state.key("logy"))
        dominated = st.toggle(
            "Show beaten trials",
            key=state.key("dominated"),
            help="Trials that another trial beats on these two axes.",
        )
        by_method = st.toggle(
            "Join by technique",
            key=state.key("methods"),
            help="One line for each technique, through its settings.",
        )
    for name, value in (
        ("x", x),
        ("y", y),
        ("logx", log_x),
        ("logy", log_y),
        ("dominated", dominated),
        ("methods", by_method),
    ):
        state.keep(name, value)
    return x, y


def _label(name: str) -> str:
    return metrics.metric(name).label


def _chart(
    study: Study, shown: tuple[Trial, ...], x: str, y: str, advice: Recommendation
) -> tuple[tuple[Trial, ...], set[str]]:
    """Draw; returns the trials drawn and the ids of those on the frontier of the two axes."""
    best = {trial.id for trial in frontier(shown, (x, y))}
    drawn = tuple(trial for trial in shown if state.chosen("dominated") or trial.id in best)
    marks = machines.marks_of(drawn)
    points = [
        replace(point, title=point.title + machines.beside(marks, point.trial_id))
        for point in charts.points(drawn, x, y)
    ]
    log_x, log_y = state.chosen("logx"), state.chosen("logy")
    on_axes = [p for p in points if (p.x > 0 or not log_x) and (p.y > 0 or not log_y)]
    alt = (
        f"{_label(y)} over {_label(x)} of {len(on_axes)} trials, {len(best)} of them on the "
        "frontier; the table below has the numbers"
    )
    if not on_axes:
        st.caption(f"No trial has both {_label(x)} and {_label(y)}: choose other axes.")
        return drawn, best
    if state.chosen("methods"):
        names = {trial.id: methods.method_of(trial.plan) for trial in drawn}
        figure = methods.methods(on_axes, names, x, y, log_x, log_y, common.dark())
    else:
        figure = charts.pareto(
            on_axes,
            x,
            y,
            best,
            study.baseline.id if study.baseline else "",
            advice.trial_id if advice.proven else None,
            study.priorities.limits,
            log_x,
            log_y,
            common.dark(),
        )
    st.plotly_chart(figure, config=charts.CONFIG, theme=None, key="pareto", alt=alt)
    tables.explain(x, y)
    for count, why in (
        (len(drawn) - len(points), "a value on an axis is unknown"),
        (len(points) - len(on_axes), "a logarithmic axis has no 0"),
    ):
        if count:
            st.caption(f"Not drawn, because {why}: {count} of {len(drawn)} trials.")
    return drawn, best


def _table(
    drawn: tuple[Trial, ...], x: str, y: str, best: set[str], advice: Recommendation
) -> None:
    """The twin of the chart; ticking rows starts a comparison."""
    roles = [
        ("recommended" if advice.proven else "leading")
        if trial.id == advice.trial_id
        else "baseline"
        if trial.is_baseline
        else "frontier of these axes"
        if trial.id in best
        else BEATEN
        if trial.value(x) is not None and trial.value(y) is not None
        else "not drawn"
        for trial in drawn
    ]
    both = (x,) if x == y else (x, y)
    three = tuple(dict.fromkeys((x, y, "model_bytes")))
    ids = [trial.id for trial in drawn]
    marks = machines.marks_of(drawn)
    rows = tables.draw(
        "tradeoffs",
        [
            {
                "Plan": trial.plan.title,
                "Role": role,
                **machines.column(marks, trial.id),
                "Origin": words.origin(trial, x, y),
                **{_label(name): words.reading(trial.metric(name)) for name in both},
            }
            for trial, role in zip(drawn, roles, strict=True)
        ],
        [
            {
                "Plan": f"{trial.plan.title} {'' if role == BEATEN else role}"
                f"{machines.beside(marks, trial.id)}",
                **tables.numbers(three, trial.value),
            }
            for trial, role in zip(drawn, roles, strict=True)
        ],
        f"Trials with {_label(x)} and {_label(y)}",
        tables.help_of(both, _label),
        ticked=(),
        context=(ids, x, y),
    )
    ticked = [ids[row] for row in rows]
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(
            f"Compare {len(ticked) or ''}".strip(),
            type="primary",
            icon=":material/compare_arrows:",
            key="to-compare",
            disabled=len(ticked) < 2,
        ):
            state.go("compare", study=drawn[0].study_id, trials=ticked)
        st.caption("Tick two or more rows to compare them." if len(ticked) < 2 else "")
