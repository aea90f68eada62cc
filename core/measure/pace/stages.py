"""How long the trials of a study spend in each stage, from the moments at which events come."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.journal.events import Event, TrialEnded, TrialProgressed, TrialQueued, TrialStarted
from core.plan import Plan
from core.planner.pace import Took
from core.study import Study

# From the start of the process until it tells its first stage.
START = "start"


class Stages:
    """A listener for one study; `took` has its trials that are done, in the order of their ends."""

    def __init__(
        self,
        study_id: str,
        study: Study | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study_id = study_id
        self._clock = clock
        trials = () if study is None else study.trials
        self._plans = {trial.id: trial.plan for trial in trials}
        self._stage = ""
        self._since = self._began = 0.0
        self._stages: dict[str, float] = {}
        self.took: list[Took] = []

    @property
    def running(self) -> bool:
        """Whether a trial runs."""
        return bool(self._stage)

    @property
    def seconds(self) -> float:
        """Of the trial that runs, or that ended last, until its last event."""
        return self._since - self._began

    def plan(self, trial_id: str) -> Plan | None:
        """The plan of a trial that was queued."""
        return self._plans.get(trial_id)

    def __call__(self, event: Event) -> None:
        """Called for every event that is kept."""
        if event.study_id != self._study_id:
            return
        match event.content():
            case TrialQueued(trial):
                self._plans[event.trial_id] = trial.plan
            case TrialStarted():
                self._stages, self._stage = {}, START
                self._began = self._since = self._clock()
            case TrialProgressed(_, stage, _):
                self._close(stage)
            case TrialEnded(_, state, _) if self._stage:
                self._close("")
                if state == "done" and event.trial_id in self._plans:
                    self.took.append(Took(self._plans[event.trial_id], self._stages))

    def _close(self, following: str) -> None:
        now = self._clock()
        self._stages[self._stage] = self._stages.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = following, now
