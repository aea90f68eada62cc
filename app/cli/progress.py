"""What a running study says on the way: one line a trial to stderr, and the running stage on a
terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.cli.console import Console
from core import format as formats
from core.journal.events import Event, TrialEnded, TrialProgressed, TrialQueued
from core.measure.pace.stages import Stages
from core.plan import Plan
from core.planner.pace import costs
from core.study import ENDED, Study

# Time left is told in steps of so many seconds: it is an estimate.
ABOUT_S = 5


class StudyProgress:
    """A listener for one study; of `study`, when given, trials have ended before."""

    def __init__(
        self,
        console: Console,
        study_id: str,
        total: int,
        study: Study | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._study_id = study_id
        self._stages = Stages(study_id, study, clock)
        trials = () if study is None else study.trials
        self._total = len(trials) or total
        self._ended = sum(trial.state in ("done", "failed", "refused") for trial in trials)
        # Resuming runs what was cancelled.
        open_ = (trial for trial in trials if trial.state not in ENDED - {"cancelled"})
        self._left: dict[str, Plan] = {trial.id: trial.plan for trial in open_}

    def __call__(self, event: Event) -> None:
        """Called by the supervisor for every event that was kept."""
        if event.study_id != self._study_id:
            return
        ran = self._stages.running
        self._stages(event)
        plan = self._stages.plan(event.trial_id)
        title = plan.title if plan else event.trial_id
        match event.content():
            case TrialQueued(trial):
                self._left[event.trial_id] = trial.plan
            case TrialEnded(_, state, reason):
                self._ended += 1
                self._left.pop(event.trial_id, None)
                why = f": {reason}" if reason else ""
                pace = self._pace() if ran else ""
                self._line(f"[{self._ended}/{self._total}] {state:9} {title}{why}{pace}\n")
            case TrialProgressed(_, stage, share) if self._console.terminal:
                self._line(f"[{self._ended}/{self._total}] {title}: {stage} {share:.0%}")

    def _pace(self) -> str:
        """Seconds of the trial that has just ended, and about how many the others will take."""
        took = f", {formats.duration(self._stages.seconds)}"
        left = sum(cost.seconds for cost in costs(list(self._left.values()), self._stages.took))
        about = round(left / ABOUT_S) * ABOUT_S
        return f"{took}; about {formats.duration(about)} left" if about else took

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._console.terminal else ""
        print(clear + text, end="", file=self._console.err, flush=True)
