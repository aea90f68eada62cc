"""What a running study says on the way: one line a trial to stderr, and the running stage on a
terminal.
"""

from __future__ import annotations

from app.cli.console import Console
from core.journal.events import Event, TrialEnded, TrialProgressed, TrialQueued
from core.study import Study


class Progress:
    """A listener for one study; of `study`, when given, trials have ended before."""

    def __init__(
        self, console: Console, study_id: str, total: int, study: Study | None = None
    ) -> None:
        self._console = console
        self._study_id = study_id
        trials = () if study is None else study.trials
        self._total = len(trials) or total
        self._ended = sum(trial.state in ("done", "failed", "refused") for trial in trials)
        self._titles = {trial.id: trial.plan.title for trial in trials}

    def __call__(self, event: Event) -> None:
        """Called by the supervisor for every event that was kept."""
        if event.study_id != self._study_id:
            return
        title = self._titles.get(event.trial_id, event.trial_id)
        match event.content():
            case TrialQueued(trial):
                self._titles[event.trial_id] = trial.plan.title
            case TrialEnded(_, state, reason):
                self._ended += 1
                why = f": {reason}" if reason else ""
                self._line(f"[{self._ended}/{self._total}] {state:9} {title}{why}\n")
            case TrialProgressed(_, stage, share) if self._console.terminal:
                self._line(f"[{self._ended}/{self._total}] {title}: {stage} {share:.0%}")

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._console.terminal else ""
        print(clear + text, end="", file=self._console.err, flush=True)
