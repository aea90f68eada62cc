"""Which trial of a study comes next, and how thoroughly, so that the study ends when its preset
promised. Runs nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core import format as formats
from core.measure.pace.stages import Stages
from core.planner.pace import choose, whole_rounds
from core.planner.prefixes import shared
from core.planner.presets import Preset, preset
from core.study import ENDED, Study, Trial

# Of the promised time, what the start of the program and the printing of the result may take.
RESERVE = 1 / 12
# So many trials are measured whatever they take, in full: the unchanged model, and one that can be
# compared with it.
FIRST = 2


@dataclass(frozen=True)
class Turn:
    """A trial whose turn it is: `prefixes` of its plan are kept for later ones, `rounds` is None
    for as many as the preset says.
    """

    trial: Trial
    prefixes: tuple[int, ...] = ()
    rounds: int | None = None


class Schedule:
    """Of one run of a study over `trials`, in the order in which they were proposed.

    `seconds`, when given, stand in the place of what the preset promises and of the study's budget,
    and no trial runs beyond them; `go_on` says how what was left out is measured.
    """

    def __init__(
        self,
        study: Study,
        trials: Sequence[Trial],
        clock: Callable[[], float] = time.monotonic,
        seconds: float | None = None,
        go_on: str = "",
    ) -> None:
        self.left = list(trials)
        self.stages = Stages(study.id, study, clock)
        self._preset: Preset = preset(study.preset)
        self._clock = clock
        self._begun = 0
        self._seconds = seconds
        self._go_on = go_on or f"measure it with: trimtab resume {study.id}"
        # Who states a budget has said how long it may take: no trial starts after it.
        self._budget_s = study.budget_s if seconds is None else None
        self._last_start = None if self._budget_s is None else clock() + self._budget_s
        promise = self._preset.promise_s if study.budget_s is None else None
        self._end = None if promise is None else clock() + promise * (1 - RESERVE)
        if seconds is not None:
            self._last_start = self._end = clock() + seconds

    def next(self) -> Turn | None:
        """The next turn; None when nothing is left or nothing fits into the time that is left."""
        if not self.left or (self._last_start is not None and self._clock() > self._last_start):
            return None
        trial, rounds = self.left[0], None
        if self._end is not None and self._begun >= FIRST:
            plans = [each.plan for each in self.left]
            fewest = self._preset.fewest / self._preset.repeats
            chosen = choose(plans, self.stages.took, self._end - self._clock(), fewest)
            if not chosen.plans:
                return None
            trial = self.left[plans.index(chosen.plans[0])]
            if chosen.rounds < 1:
                rounds = whole_rounds(chosen.rounds, self._preset.repeats, self._preset.fewest)
        self.left.remove(trial)
        self._begun += 1
        return Turn(trial, shared(trial.plan, (later.plan for later in self.left)), rounds)

    def is_late(self) -> bool:
        """Whether the running trial must end for the promise to be kept."""
        free = self._begun <= FIRST and self._seconds is None
        return self._end is not None and not free and self._clock() > self._end

    @property
    def left_out(self) -> str:
        """Why a trial was not measured to its end."""
        if self._budget_s is not None:
            return f"the budget of {self._budget_s:g} s was used up before this trial"
        within = self._preset.promise_s if self._seconds is None else self._seconds
        who = "the study had promised" if self._seconds is None else "it was asked"
        return (
            f"left out: the time did not suffice, {who} to end within"
            f" {formats.duration(within or 0.0)}; {self._go_on}"
        )


def open_trials(study: Study) -> list[Trial]:
    """Trials that resume runs: not ended, or cancelled."""
    return [
        trial for trial in study.trials if trial.state not in ENDED or trial.state == "cancelled"
    ]


def without_baseline(study: Study) -> str:
    """Why the study stops after its baseline: it failed, and others wait. Empty when it goes on."""
    baseline, left = study.baseline, open_trials(study)
    if baseline is None or baseline.state != "failed" or not left:
        return ""
    waiting = "1 other trial" if len(left) == 1 else f"{len(left)} other trials"
    return (
        f"the unchanged model failed ({baseline.reason.rstrip('.')}), and every gain is a ratio to"
        f" it: {waiting} did not start. Plan the study again with a longer preset, a shorter"
        " workload or a smaller model; resuming this one measures the others without a baseline"
    )
