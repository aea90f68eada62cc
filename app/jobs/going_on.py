"""Whether a study can go on on this machine, so that no study holds trials of two machines unasked.

Owns the reasons; running it is the supervisor's.
"""

from __future__ import annotations

from pathlib import Path

from app import facts
from app.jobs.elsewhere import HERE
from core.measure.child.devices import absent
from core.measure.pace.schedule import open_trials
from core.study import Study
from store.interface import Store


def why_not_here(store: Store, folder: Path, study: Study) -> str | None:
    """Why a study does not go on on this machine, in words that follow a colon; None when it does.
    `folder` is that of all studies.
    """
    why = absent(study.case.target)
    if why is not None:
        return why
    machine = _other_machine(store, study)
    if machine or (folder / study.id / HERE).exists():
        return (
            f"it was begun on {machine or 'the machine that its journals came from'}, and one study"
            " does not mix machines: go on with it there and `trimtab ingest` its folder again, or"
            f" measure it here as a study of its own, with `trimtab again {study.id}` or"
            f" `trimtab bundle {study.id} -o plan.zip` and `python -m core.measure.study plan.zip"
            " OUT`"
        )
    return None


def _other_machine(store: Store, study: Study) -> str:
    """The name of a machine, not this one, whose trials this study would keep; empty without."""
    left = {trial.id for trial in open_trials(study)}
    kept = {trial.id: trial.environments for trial in study.trials if trial.id not in left}
    machines = facts.machines_by(store, kept).values()
    return next((each.name for each in machines if not facts.is_here(each)), "")
