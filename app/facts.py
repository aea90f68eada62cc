"""The facts of the environments that trials ran in, fetched from a store; the machines that these
are of, this one among them; and the warnings that screens, commands and exports show alike.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.catalogue.targets import LOCAL
from core.machine.environment import environment
from core.machine.naming import Machine
from core.machine.stays import Stay, ran_on, stays
from core.study import Trial
from core.verdict import environments
from store.interface import Store, StudySummary

# Stands for the environment of this process among those of trials.
HERE = "here"
THIS = "this machine"


def facts_of(store: Store, trials: Iterable[Trial]) -> dict[str, dict[str, Any] | None]:
    """Facts by environment id; None for one that the store does not know."""
    ids = dict.fromkeys(key for trial in trials for key in trial.environments)
    return {key: store.environment(key) for key in ids}


def warnings(store: Store, trials: Sequence[Trial]) -> tuple[str, ...]:
    """What to say where these trials stand beside each other; see
    core.verdict.environments.warnings.
    """
    return environments.warnings(trials, facts_of(store, trials))


def machines_by(store: Store, ids: Mapping[str, Sequence[str]]) -> dict[str, Machine]:
    """The machine of each trial (or study) that names these environments; one of which nothing is
    recorded is left out. `is_here` tells whether it is this machine.
    """
    named = dict.fromkeys(key for keys in ids.values() for key in keys)
    return ran_on(ids, {HERE: here(), **{key: store.environment(key) for key in named}})


def stays_of(store: Store, trials: Sequence[Trial]) -> tuple[Stay, ...]:
    """Where and when these trials ran; `is_here` tells of each machine whether it is this one."""
    return stays(trials, {HERE: here(), **facts_of(store, trials)})


def places(store: Store, summaries: Sequence[StudySummary]) -> dict[str, str]:
    """Where each study's target is, by study id: the target's id, or the names of the machines
    where `local` was not this one alone."""
    local = [summary.id for summary in summaries if summary.target_id == LOCAL]
    ids = store.environments_of_studies(local) if local else {}
    named = machines_by(store, {key: (key,) for keys in ids.values() for key in keys})
    where = {summary.id: summary.target_id for summary in summaries}
    for study_id, keys in ids.items():
        hosts = {named[key].name: named[key] for key in keys if key in named}.values()
        if any(not is_here(machine) for machine in hosts):
            names = (THIS if is_here(machine) else machine.name for machine in hosts)
            where[study_id] = " and ".join(names)
    return where


def is_here(machine: Machine) -> bool:
    """Whether a machine of machines_by() or stays_of() can be this one."""
    return HERE in machine.environments


@functools.lru_cache(maxsize=1)
def here() -> Mapping[str, Any]:
    """The facts of this machine, as they were when they were first asked for."""
    return environment()[1]
