"""Which trial of a study comes next, and how thoroughly, so that the study ends when its preset
promised. Runs nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.jobs.pace.stages import Stages
from core import format as formats
from core.measure.presets import Preset, preset
from core.planner.pace import choose, whole_rounds
from core.planner.prefixes import shared
from core.study import Study, Trial

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
    """Of one run of a study over `trials`, in the order in which they were proposed."""

    def __init__(
        self, study: Study, trials: Sequence[Trial], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.left = list(trials)
        self.stages = Stages(study.id, study, clock)
        self._preset: Preset = preset(study.preset)
        self._study_id = study.id
        self._clock = clock
        self._begun = 0
        # Who states a budget has said how long it may take.
        promise = self._preset.promise_s if study.budget_s is None else None
        self._end = None if promise is None else clock() + promise * (1 - RESERVE)

    def next(self) -> Turn | None:
        """The next turn; None when nothing is left or nothing fits into the time that is left."""
        if not self.left:
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
        return self._end is not None and self._begun > FIRST and self._clock() > self._end

    @property
    def left_out(self) -> str:
        """Why a trial was not measured to its end."""
        promise = formats.duration(self._preset.promise_s or 0.0)
        return (
            f"left out: the time did not suffice, the study had promised to end within {promise};"
            f" measure it with: trimtab resume {self._study_id}"
        )
