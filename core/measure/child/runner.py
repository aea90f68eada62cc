"""Runs one trial of a study: attempts until one ends in words; what crashed is tried again.

Which trial runs when is decided by whoever asks, how one attempt is watched in attempt.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from core.journal.events import Event, NoteWritten, TrialEnded
from core.measure.child.attempt import CLOSED, LATE, Attempt, Outcome
from core.measure.child.belief import Unfit
from core.measure.child.child import Child
from core.measure.child.crashes import crash_note
from core.measure.child.devices import device_environment
from core.measure.child.limits import TrialLimits
from core.measure.child.spawn import Starter
from core.measure.child.watchdog import Health
from core.measure.pace.schedule import Turn
from core.plan import Plan
from core.study import Study, Trial


class Runner:
    """`keep` puts events of a study on the disk and into the store, `ingest` into the store alone;
    `must_stop` says for a study what its running trial must end for now, `who` for whom it runs,
    `unfit` which events cannot be kept.
    """

    def __init__(
        self,
        folder: Path,
        starter: Starter,
        limits: Callable[[Plan, str], TrialLimits],
        keep: Callable[[str, list[Event]], None],
        ingest: Callable[[list[Event]], None],
        must_stop: Callable[[str], str],
        who: Callable[[str], str],
        unfit: Unfit = lambda event: None,
    ) -> None:
        self._folder = folder
        self._starter = starter
        self._limits = limits
        self._keep = keep
        self._ingest = ingest
        self._must_stop = must_stop
        self._who = who
        self._unfit = unfit
        self._lock = threading.Lock()
        self._attempts: dict[str, Attempt] = {}

    def health(self, study_id: str) -> Health | None:
        """How the study's running trial is; None when none runs here."""
        with self._lock:
            attempt = self._attempts.get(study_id)
        return None if attempt is None else attempt.health()

    def run(self, study: Study, turn: Turn, device: str, left_out: str = "") -> None:
        """Run a trial to its end, unless `must_stop` says CLOSED meanwhile; `left_out` is the
        reason of its end when the study's time is over first.
        """
        trial = turn.trial
        told: list[str] = []
        while True:
            number = trial.attempt + len(told) + 1
            limits = self._limits(trial.plan, study.preset)
            texts = (crash_note(n, limits.attempts, why) for n, why in enumerate(told, 1))
            notes = [NoteWritten(number, text).event(study.id, trial.id) for text in texts]
            self._keep(study.id, notes)
            outcome = self._attempt(study, trial, number, device, limits, turn)
            if outcome.state == CLOSED:
                return
            self._keep(study.id, list(outcome.rescued))
            if outcome.state == LATE:
                self._keep(study.id, [ended(trial, number, "cancelled", left_out)])
                return
            if outcome.end is not None:
                self._ingest([outcome.end])
                return
            told.append(outcome.reason)
            if not outcome.retry or len(told) == limits.attempts:
                reason = summary(told) if outcome.state == "failed" else outcome.reason
                self._keep(study.id, [ended(trial, number, outcome.state, reason)])
                return

    def _attempt(
        self,
        study: Study,
        trial: Trial,
        number: int,
        device: str,
        limits: TrialLimits,
        turn: Turn,
    ) -> Outcome:
        folder = self._folder / study.id
        environment = device_environment(device)
        who = self._who(study.id)
        child = Child(
            folder, study, trial, number, limits, self._starter, environment, who, turn, self._unfit
        )
        attempt = Attempt(child, limits, folder, number, trial.id)
        with self._lock:
            self._attempts[study.id] = attempt
        try:
            return attempt.run(self._ingest, lambda: self._must_stop(study.id))
        finally:
            with self._lock:
                self._attempts.pop(study.id, None)


def summary(reasons: list[str]) -> str:
    """The reason of a trial that failed after these attempts; all are named."""
    if len(reasons) == 1:
        return reasons[0]
    if len(set(reasons)) == 1:
        return f"{reasons[0]} ({len(reasons)} attempts, each ended so)"
    numbered = "; ".join(f"attempt {n}: {reason}" for n, reason in enumerate(reasons, 1))
    return f"{len(reasons)} attempts failed; {numbered}"


def ended(trial: Trial, attempt: int, state: str, reason: str) -> Event:
    """The end of a trial in the words of whoever runs it."""
    return TrialEnded(attempt, state, reason).event(trial.study_id, trial.id)
