"""Which machine numbers were taken on: said where it is not this one, or not the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from app import facts, services
from app.parts import words
from core.machine.naming import machine_name
from core.study import Trial
from store.interface import StudySummary

ELSEWHERE = ":blue-badge[:material/lan: another machine]"


def marks(ids: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A word for the machine of each trial, by the environments it names: its name, or THIS;
    empty when all ran here, so that a table shows the column only where it tells something."""
    on = facts.machines_by(services.get_services().store, ids)
    if all(facts.is_here(machine) for machine in on.values()):
        return {}
    return {
        key: facts.THIS if facts.is_here(machine) else machine.name for key, machine in on.items()
    }


def marks_of(trials: Sequence[Trial]) -> dict[str, str]:
    """As marks(), for whole trials."""
    return marks({trial.id: trial.environments for trial in trials})


def elsewhere(trials: Sequence[Trial]) -> str:
    """The names of the machines that `trials` ran on, where one of them is not this one; else
    empty."""
    return " and ".join(dict.fromkeys(marks_of(trials).values()))


def place(trial: Trial) -> str:
    """Where a trial ran, in a title: its target's id, or the machine's name where `local` was
    another machine."""
    local = trial.plan.case.target.local
    return (elsewhere((trial,)) if local else "") or trial.plan.case.target.id


def column(named: Mapping[str, str], trial_id: str) -> dict[str, str]:
    """A table's cell for the machine of a trial; no column where marks() has nothing to tell."""
    return {"Machine": named.get(trial_id, "—")} if named else {}


def beside(named: Mapping[str, str], trial_id: str) -> str:
    """` · NVIDIA H200`, to stand behind a plan's name where it ran on another machine."""
    name = named.get(trial_id, facts.THIS)
    return "" if name == facts.THIS else f" · {name}"


def head(trials: Sequence[Trial]) -> None:
    """A line for each machine that `trials` ran on: its name, driver, torch and the days."""
    measured = [trial for trial in trials if trial.measurements]
    verb = "Measured" if all(trial.plan.case.target.local for trial in measured) else "Ran"
    for stay in facts.stays_of(services.get_services().store, measured):
        if facts.is_here(stay.machine):
            # Its own name, even where another one is called so.
            plain = replace(stay.machine, name=machine_name(stay.machine.facts))
            line = replace(stay, machine=plain).line
            said = f"{verb} on {facts.THIS}: {words.plain(line)}"
        else:
            said = f"{verb} on **{words.plain(stay.line)}** {ELSEWHERE}"
        # No caption: its paler text would take the badge below a readable contrast.
        st.markdown(f":small[:material/memory: {said}]")


def places(summaries: Sequence[StudySummary]) -> dict[str, str]:
    """As facts.places(), of the store that pages show."""
    return facts.places(services.get_services().store, summaries)
