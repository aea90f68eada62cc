"""Live: watch a study and steer it.

Everything shown is read from the store, so a closed tab loses nothing.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app import services, state
from app.parts import common, machines, tables, words
from core import metrics
from core.measure.child.crashes import crashes
from core.measure.child.watchdog import Health
from core.study import Study, Trial
from core.verdict.anchor import anchored
from store.interface import StudySummary, TrialProgress

STUCK = "! stuck"
ON_ITS_WAY = {
    "paused": "Pausing: the trial that runs now ends first.",
    "cancelled": "Cancelling: the trial that runs now is being stopped.",
}


def page() -> None:
    """Draw the page."""
    st.title("Live", anchor=False)
    summary = common.pick_study()
    if summary is None:
        return
    summary = _as_supervised(summary)
    _buttons(summary)
    active = summary.state in words.ACTIVE
    if active:
        st.fragment(_panel, run_every=2)(summary.id, True)
    else:
        _panel(summary.id, False)


def _as_supervised(summary: StudySummary) -> StudySummary:
    """A resumed study waits for the supervisor a moment before the store says so: it is queued."""
    waiting = summary.id in services.get_services().jobs.active()
    if waiting and summary.state not in words.ACTIVE:
        return replace(summary, state="queued", reason="")
    return summary


def _buttons(summary: StudySummary) -> None:
    """Steering stays outside the fragment: a dialog inside one would close at the next tick."""
    jobs = services.get_services().jobs
    with st.container(horizontal=True, vertical_alignment="center"):
        if summary.state in words.ACTIVE:
            if st.button(
                "Pause",
                icon=":material/pause:",
                key="pause",
                help="Stops after the trial that runs now.",
            ):
                jobs.pause(summary.id, common.me())
                state.flash("Pausing: the trial that runs now ends first.")
                st.rerun()
            if st.button(
                "Cancel", icon=":material/stop:", key="cancel", help="Stops the running trial too."
            ):
                _confirm_cancel(summary.id)
        if summary.state in ("paused", "cancelled"):
            _resume(summary)
        if summary.state == "paused" and st.button("Cancel", icon=":material/stop:", key="cancel"):
            _confirm_cancel(summary.id)
        if summary.ended:
            here = state.words(study=summary.id, trials=())
            st.page_link(state.page("tradeoffs"), label="Trade-offs", query_params=here)
            st.page_link(state.page("compare"), label="Compare", query_params=here)


def _resume(summary: StudySummary) -> None:
    """The button, or why the study does not go on on this machine."""
    opened = services.get_services()
    study = opened.store.study(summary.id)
    why = opened.jobs.why_not_here(study) if study is not None else None
    if why is not None:
        st.caption(words.plain(f"It does not go on here: {why}."))
    elif st.button(
        "Resume",
        type="primary",
        icon=":material/play_arrow:",
        key="resume",
        help="Goes on with the trials that have not ended.",
    ):
        opened.jobs.resume(summary.id, common.me())
        state.flash("The study goes on.")
        st.rerun()


@st.dialog("Cancel this study?")
def _confirm_cancel(study_id: str) -> None:
    st.markdown(
        "The running trial is stopped now. What has been measured stays, and the study can be "
        "resumed later."
    )
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Keep it running", key="cancel-no"):
            st.rerun()
        if st.button(
            "Cancel the study",
            type="primary",
            icon=":material/stop:",
            key="cancel-yes",
            on_click=_cancel,
            args=(study_id,),
        ):
            st.rerun()


def _cancel(study_id: str) -> None:
    services.get_services().jobs.cancel(study_id, common.me())
    state.flash("The study was cancelled.")


def _panel(study_id: str, active: bool) -> None:
    """Progress, trials and log: only reads."""
    with common.sentences():
        store, jobs = services.get_services().store, services.get_services().jobs
        study = store.study(study_id)
        if study is None:
            st.warning("This study is no longer in the store.", icon=":material/search_off:")
            return
        if active and study.state not in words.ACTIVE and study_id not in jobs.active():
            st.rerun()
        progress = {entry.trial_id: entry for entry in store.progress(study_id)}
        _figures(study, progress, jobs.eta_s(study_id) if active else None)
        health = jobs.health(study_id)
        _steering(study, jobs.on_its_way(study_id), jobs.ahead(study_id), health)
        st.header("Trials", anchor=False)
        stuck = health.trial_id if health is not None and health.sentence else ""
        _table(anchored(study), progress, stuck)
        with st.expander("Log", expanded=active, icon=":material/notes:"):
            lines = jobs.log_tail(study_id, 40)
            with st.container(height=260, autoscroll=True, border=False):
                st.code(
                    "\n".join(lines) or "Nothing has been written yet.",
                    language=None,
                    wrap_lines=True,
                )


def _figures(study: Study, progress: dict[str, TrialProgress], eta_s: float | None) -> None:
    ended, total = words.ended(study.trials), len(study.trials)
    failed = sum(trial.state == "failed" for trial in study.trials)
    running = [
        progress[trial.id]
        for trial in study.trials
        if trial.state == "running" and trial.id in progress
    ]
    st.markdown(f"{words.badge(study.state)} {words.plain(study.reason)}")
    st.caption(words.plain(f"Started {words.ago(study.created_at)}{words.by(study.who)}"))
    machines.head(study.trials)
    with st.grid(4, min_column_width=170):
        st.metric("Trials ended", f"{ended} of {total}", border=True)
        st.metric("Failed", str(failed), border=True)
        st.metric(
            "Time left",
            _left(study, eta_s),
            border=True,
            help="From how long the trials so far took.",
        )
        st.metric("Stage", words.plain(running[0].stage) if running else "—", border=True)
    share = (ended + sum(stage.share for stage in running)) / total if total else 0.0
    now = [trial.plan.title for trial in study.trials if trial.state == "running"]
    st.progress(
        min(share, 1.0),
        text=words.plain(f"Running {now[0]}") if now else f"{ended} of {total} trials ended",
    )


def _steering(study: Study, asked: str, ahead: int, health: Health | None) -> None:
    """What is not as usual: a stuck trial, a study that waits, a wish on its way."""
    if health is not None and health.sentence:
        trial = study.trial(health.trial_id)
        name = trial.plan.title if trial is not None else health.trial_id
        st.warning(
            f"**{words.plain(name)}**, attempt {health.attempt}, is {words.plain(health.sentence)}",
            icon=":material/hourglass_disabled:",
        )
    if asked in ON_ITS_WAY and study.state in words.ACTIVE:
        st.info(ON_ITS_WAY[asked], icon=":material/pending:")
    if ahead:
        others = "1 other study" if ahead == 1 else f"{ahead} other studies"
        st.info(
            f"Waits for the device: {others} first, so that no trial disturbs another.",
            icon=":material/schedule:",
        )


def _left(study: Study, eta_s: float | None) -> str:
    if study.state in ("done", "cancelled"):
        return "ended"
    if study.state == "paused":
        return "paused"
    return "unknown yet" if eta_s is None else f"about {roughly(eta_s)}"


def roughly(seconds: float) -> str:
    """`40 s` or `3 min`: an estimate deserves no decimals."""
    return f"{max(round(seconds), 1)} s" if seconds < 100 else f"{round(seconds / 60)} min"


def _table(study: Study, progress: dict[str, TrialProgress], stuck: str) -> None:
    # All of the task's columns from the start, so that none moves when a number arrives.
    # The first three are what a phone shows.
    shown = metrics.listed(f"live_{study.case.model.task}")
    rows = [
        _row(number, trial, progress.get(trial.id), shown, trial.id == stuck)
        for number, trial in enumerate(study.trials, 1)
    ]
    if not any(trial.attempt > 1 for trial in study.trials):
        # A column of ones says nothing.
        for row in rows:
            del row["Attempt"]
    if not rows:
        st.caption("No trial has been queued yet.")
        return
    tables.draw(
        "live",
        rows,
        [
            {
                "Plan": f"{trial.plan.title} {'' if trial.state == 'done' else row['State']}",
                **tables.numbers(shown[:3], trial.value),
            }
            for row, trial in zip(rows, study.trials, strict=True)
        ],
        "Trials of this study with their state and first numbers",
        {
            "#": st.column_config.NumberColumn(width=40),
            "Progress": st.column_config.ProgressColumn(
                min_value=0, max_value=100, format="%d %%", width="small"
            ),
            **tables.help_of(shown, _heading),
        },
    )
    reasons = [
        f"- {words.plain(words.word(trial.state))}: **{words.plain(trial.plan.title)}**, "
        f"{words.plain(trial.reason)}"
        for trial in study.trials
        if trial.reason
    ]
    reasons += [
        f"- ↻ tried again: **{words.plain(trial.plan.title)}**, {words.plain(crash)}"
        for trial in study.trials
        if trial.state != "failed"
        for crash in crashes(trial)
    ]
    if reasons:
        st.markdown("\n".join(reasons))


def _row(
    number: int, trial: Trial, progress: TrialProgress | None, shown: tuple[str, ...], stuck: bool
) -> dict[str, object]:
    share = progress.share if progress else float(trial.state in ("done", "failed"))
    values = {_heading(name): words.number(name, trial.value(name)) for name in shown}
    return {
        "Plan": trial.plan.title,
        "#": number,
        "State": STUCK if stuck else words.word(trial.state),
        "Origin": words.origin(trial, *shown),
        "Attempt": trial.attempt,
        "Progress": round(100 * share),
        **values,
    }


def _heading(name: str) -> str:
    return metrics.metric(name).short
