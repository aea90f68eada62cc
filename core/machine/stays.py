"""Which machine each trial ran on, and when.

Pure: facts and trials are given; core.machine.naming tells machines apart and calls them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.machine.naming import Machine, Versions, in_words, machines, software
from core.study import Trial

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Stay:
    """Trials that ran on one machine with the same driver and torch, between two days (ISO dates,
    empty where nothing says when)."""

    machine: Machine
    software: Versions
    trials: tuple[str, ...]
    first: str
    last: str

    @property
    def line(self) -> str:
        """`NVIDIA H200, driver 580.95, torch 2.11.0, 2026-12-02`."""
        parts = (self.machine.name, *in_words(self.software), span(self.first, self.last))
        return ", ".join(part for part in parts if part)


def span(first: str, last: str) -> str:
    """`2026-12-02`, or `2026-12-02 to 2026-12-03` where two days differ."""
    return first if first == last else f"{first} to {last}"


def ran_on(
    ids_by_trial: Mapping[str, Sequence[str]], environments: Mapping[str, Facts | None]
) -> dict[str, Machine]:
    """The machine of each trial, by the environments that it names; a trial of which nothing is
    known is left out."""
    known = machines(environments)
    hits = {
        trial_id: next((known[key] for key in ids if key in known), None)
        for trial_id, ids in ids_by_trial.items()
    }
    return {trial_id: machine for trial_id, machine in hits.items() if machine is not None}


def machines_of(
    trials: Iterable[Trial], environments: Mapping[str, Facts | None]
) -> dict[str, Machine]:
    """As `ran_on`, for whole trials."""
    return ran_on({trial.id: trial.environments for trial in trials}, environments)


def several(hosts: Iterable[Machine]) -> bool:
    """Whether these are more than one machine."""
    return len({machine.name for machine in hosts}) > 1


def stays(trials: Sequence[Trial], environments: Mapping[str, Facts | None]) -> tuple[Stay, ...]:
    """Where and when `trials` ran, in the order of their first trial."""
    by_place: dict[tuple[str, Versions], list[Trial]] = {}
    on = machines_of(trials, environments)
    for trial in trials:
        if trial.id in on:
            place = (on[trial.id].name, _software(trial, environments))
            by_place.setdefault(place, []).append(trial)
    return tuple(
        Stay(
            on[members[0].id],
            place[1],
            tuple(trial.id for trial in members),
            min(days := _days(members)),
            max(days),
        )
        for place, members in by_place.items()
    )


def stay_document(stay: Stay) -> dict[str, Any]:
    """JSON-safe data of a stay."""
    return {
        "name": stay.machine.name,
        "driver": dict(stay.software).get("driver"),
        "torch": dict(stay.software).get("torch"),
        "environments": list(stay.machine.environments),
        "trials": list(stay.trials),
        "first": stay.first or None,
        "last": stay.last or None,
    }


def _days(trials: Sequence[Trial]) -> list[str]:
    return [trial.started_at[:10] for trial in trials if trial.started_at] or [""]


def _software(trial: Trial, environments: Mapping[str, Facts | None]) -> Versions:
    facts = (environments.get(key) for key in trial.environments)
    return software(next(known for known in facts if known))
