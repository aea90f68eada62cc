"""A Report: a frozen, versioned comparison. It carries a snapshot of the study, so later runs
never change it.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.study import Study, Trial


@dataclass(frozen=True)
class Report:
    """`study` is the snapshot, `trial_ids` the compared trials in order, `baseline_id` the one
    others are judged by.

    `environments` holds (environment id, JSON of its facts) for every environment the trials ran
    in. `who` saved this version; empty when nobody is known.
    """

    id: str
    version: int
    title: str
    study: Study
    trial_ids: tuple[str, ...]
    baseline_id: str
    created_at: str
    note: str = ""
    environments: tuple[tuple[str, str], ...] = ()
    who: str = ""

    def trials(self) -> tuple[Trial, ...]:
        """The compared trials, in the report's order."""
        by_id = {trial.id: trial for trial in self.study.trials}
        return tuple(by_id[trial_id] for trial_id in self.trial_ids if trial_id in by_id)
