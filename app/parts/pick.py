"""Which trials are looked at, and against which baseline: shared by Compare and Reports. Not a
page."""

from __future__ import annotations

import streamlit as st

from app import reports as exports
from app import services, state
from app.parts import common, machines
from core.errors import BadInput
from core.ids import new_id, now
from core.report import Report
from core.study import Study, Trial
from core.verdict.recommend import recommend

USUAL = 4


def trials(page: str) -> tuple[Study, tuple[Trial, ...], str] | None:
    """The chosen trials with the study they are seen in and the baseline's id; None after an empty
    state."""
    wanted = state.chosen("trials")
    named = common.trials_of(wanted)
    if named and state.chosen("study") is None:
        state.choose("study", named[0].study_id)
    above, beside = st.columns([2, 1], gap="medium")
    with above:
        summary = common.pick_study("A comparison needs measured trials. ")
    if summary is None:
        return None
    study = common.study_of(summary)
    if study is None:
        st.warning("This study is no longer in the store.", icon=":material/search_off:")
        return None
    known = {trial.id: trial for trial in (*study.done(), *named, *study.trials)}
    if not known:
        common.empty(
            "Nothing to compare yet",
            "This study has no trial yet. Watch it run first.",
            "Watch it",
            "live",
            ":material/monitor_heart:",
        )
        return None
    ids = list(known)
    if not any(choice in known for choice in wanted):
        state.choose("trials", usual(study))
    chosen = st.multiselect(
        "Trials",
        ids,
        key=state.key("trials", ids),
        format_func=lambda key: title(known[key], study),
        placeholder="Choose two or more trials",
    )
    state.keep("trials", chosen)
    if not chosen:
        common.empty(
            "No trial chosen",
            "Pick trials above, or tick them in the table of all trials.",
            "All trials",
            "trials",
            ":material/table_rows:",
        )
        return None
    picked = tuple(known[choice] for choice in chosen)
    base = next((trial.id for trial in picked if trial.is_baseline), chosen[0])
    baseline_id = beside.selectbox(
        "Baseline",
        chosen,
        key=state.key("baseline", chosen, base),
        format_func=lambda key: title(known[key], study),
        help="The trial that the others are judged by.",
    )
    state.keep("baseline", baseline_id)
    return study, picked, baseline_id


def usual(study: Study) -> list[str]:
    """What is shown before anyone chose: the baseline, the recommendation and others of the
    frontier."""
    advice = recommend(study)
    first = [study.baseline.id] if study.baseline else []
    rest = [advice.trial_id] if advice.trial_id else []
    wanted = [
        *first,
        *rest,
        *advice.frontier,
        *(trial.id for trial in study.done()),
        *(trial.id for trial in study.trials),
    ]
    return list(dict.fromkeys(wanted))[:USUAL]


def title(trial: Trial, study: Study) -> str:
    """A trial in a list: its plan, its state when it has no numbers, its study when that is
    another one."""
    text = trial.plan.title
    if trial.state != "done":
        text += f" · {trial.state}"
    if trial.study_id != study.id:
        model = trial.plan.case.model.id
        text += f" · {model} on {machines.place(trial)}, study {trial.study_id}"
    return text


def report(
    study: Study, picked: tuple[Trial, ...], baseline_id: str, heading: str, note: str
) -> Report:
    """A frozen comparison of `picked` as they are now; the study's snapshot keeps every trial that
    is compared."""
    snapshot = {trial.id: trial for trial in (*study.trials, *picked)}
    return Report(
        new_id("r"),
        1,
        heading,
        study.with_trials(tuple(snapshot.values())),
        tuple(trial.id for trial in picked),
        baseline_id,
        now(),
        note,
        common.environments(picked),
        common.me(),
    )


def save(
    study: Study, picked: tuple[Trial, ...], baseline_id: str, heading: str, note: str
) -> Report:
    """Keep the comparison; trials of several studies make a report of their own, with the trials
    in its snapshot."""
    store = services.get_services().store
    ids = [trial.id for trial in picked]
    if all(study.trial(key) is not None for key in ids):
        return exports.new_report(store, study.id, heading, ids, baseline_id, note, common.me())
    if not heading.strip():
        raise BadInput("a report needs a title, so that others find it")
    saved = report(study, picked, baseline_id, heading.strip(), note.strip())
    store.save_report(saved)
    return saved
