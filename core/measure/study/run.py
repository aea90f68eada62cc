"""Runs a study's trials on this box, one after the other, as the supervisor does: the same
children, limits, journals, prefixes and pace, but no store.

Its folder is what a store takes in as its own: `trimtab ingest`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.errors import BadInput
from core.ids import new_id
from core.journal.events import Event, StudyStateChanged, TrialEnded, study_created, trial_queued
from core.journal.journal import Journal
from core.measure.child.attempt import CLOSED, LATE
from core.measure.child.devices import devices
from core.measure.child.limits import TrialLimits, limits_for
from core.measure.child.orphans import end_orphans
from core.measure.child.runner import Runner, ended
from core.measure.child.spawn import Spawned, Starter
from core.measure.child.watchdog import disk_too_full
from core.measure.pace import prefixes
from core.measure.pace.schedule import Schedule, open_trials, without_baseline
from core.measure.study.said import line
from core.measure.study.standing import STUDY, Standing
from core.plan import Plan
from core.predict import fit
from core.study import Study, Trial
from core.techniques.kinds import refuse

GO_ON = "run the same command again to go on"


def begin(folder: Path, study: Study, plans: tuple[Plan, ...]) -> Standing:
    """Write the journal of a new study below `folder`: its trials, those that cannot run refused
    with their reasons.
    """
    events = [study_created(study)]
    for plan in plans:
        trial = Trial(new_id("t"), study.id, plan)
        events.append(trial_queued(trial, study.who))
        reason = refuse(plan) or fit(plan)
        if reason is not None:
            events.append(replace(ended(trial, 0, "refused", reason), who=study.who))
    events.append(StudyStateChanged("queued").event(study.id, who=study.who))
    with Journal(folder / study.id / STUDY) as journal:
        journal.extend(events)
    return Standing(events)


class StudyRun:
    """One run over the trials of a study that are open, in this thread.

    `say` is told a line for each trial that has ended. `seconds` end the run, `only` the first so
    many plans are measured; `starter` and `limits` are for tests.
    """

    def __init__(
        self,
        folder: Path,
        standing: Standing,
        say: Callable[[str], object],
        seconds: float | None = None,
        only: int | None = None,
        starter: Starter = Spawned,
        limits: Callable[[Plan, str], TrialLimits] = limits_for,
    ) -> None:
        study = standing.study
        assert study is not None
        self._folder = folder.absolute()
        self._study = study
        self._standing = standing
        self._say = say
        self._limits = limits
        self._only = study.trials[:only]
        wanted = {trial.id for trial in self._only}
        trials = [trial for trial in open_trials(study) if trial.id in wanted]
        self._schedule = Schedule(study, trials, seconds=seconds, go_on=GO_ON)
        self._stopped = False
        self._runner = Runner(
            folder,
            starter,
            limits,
            self._keep,
            self._tell,
            self._must_stop,
            lambda study_id: study.who,
        )

    def stop(self) -> None:
        """End the running trial soon; what was measured is kept. May be called by a signal."""
        self._stopped = True

    @property
    def study(self) -> Study:
        """As it stands now."""
        study = self._standing.study
        assert study is not None
        return study

    def run(self) -> Study:
        """Measure what is open; the study as it stands afterwards. It is `done` when every trial
        has ended, else `paused`, for the reason it gives.

        BadInput when another process runs it.
        """
        owners = end_orphans({trial.id for trial in self._study.trials}).owners
        if owners:
            raise BadInput(
                f"study {self._study.id} is being run by another process (PID {owners[0]}): wait"
                " for it, or end that process first"
            )
        self._keep(self._study.id, [StudyStateChanged("running").event(self._study.id)])
        open_ids = {trial.id for trial in open_trials(self._study)}
        for trial in self._study.trials:
            if trial.id not in open_ids:
                self._say(line(self._study, trial))
        why = self._run_trials()
        if self._stopped:
            why = f"interrupted; {GO_ON}"
        elif not why:
            reason = self._schedule.left_out
            out = [ended(t, t.attempt, "cancelled", reason) for t in self._schedule.left]
            self._keep(self._study.id, out)
            left = len(self._study.trials) - len(self._only)
            if left and any(t.state == "queued" for t in self.study.trials):
                why = f"only {len(self._only)} plans were asked for, {left} were not measured"
        if not why:
            prefixes.clear(self._folder / self._study.id)
        state = "paused" if why else "done"
        self._keep(self._study.id, [StudyStateChanged(state, why).event(self._study.id)])
        return self.study

    def _run_trials(self) -> str:
        """Run trials as they are scheduled; why the study had to stop, else an empty text."""
        study = self._study
        device = devices(study.case.target)[0]
        while not self._stopped and (turn := self._schedule.next()) is not None:
            full = disk_too_full(self._folder, self._limits(turn.trial.plan, study.preset))
            if full is not None:
                return full.reason
            self._runner.run(study, turn, device, self._schedule.left_out)
            lost = without_baseline(self.study) if turn.trial.is_baseline else ""
            if lost and not self._stopped:
                return lost
        return ""

    def _must_stop(self, study_id: str) -> str:
        if self._stopped:
            return CLOSED
        return LATE if self._schedule.is_late() else ""

    def _keep(self, study_id: str, events: list[Event]) -> None:
        """First the disk, then whoever listens."""
        if not events:
            return
        events = [event if event.who else replace(event, who=self._study.who) for event in events]
        with Journal(self._folder / study_id / STUDY) as journal:
            journal.extend(events)
        self._tell(events)

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            self._standing(event)
            self._schedule.stages(event)
            trial = self.study.trial(event.trial_id) if event.is_a(TrialEnded) else None
            if trial is not None:
                self._say(line(self.study, trial))
