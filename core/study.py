"""A Study asks one question of one case; its Trials are the answers measured so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from core.caution import Caution, read_line
from core.measurement import Measurement
from core.plan import Case, Plan
from core.priorities import Priorities

TRIAL_STATES = ("queued", "running", "done", "failed", "refused", "cancelled")
STUDY_STATES = ("queued", "running", "paused", "done", "cancelled")
ENDED = frozenset({"done", "failed", "refused", "cancelled"})


@dataclass(frozen=True)
class KernelCalls:
    """A kernel that ran in a trial, and how often; counted at the call."""

    op: str
    name: str
    calls: int


@dataclass(frozen=True)
class Trial:
    """A Plan being or having been run; a detached copy, with no handle to the store. `who` asked
    for the latest attempt; empty when nobody is known.
    """

    id: str
    study_id: str
    plan: Plan
    state: str = "queued"
    reason: str = ""
    attempt: int = 0
    started_at: str = ""
    ended_at: str = ""
    measurements: tuple[Measurement, ...] = ()
    kernels: tuple[KernelCalls, ...] = ()
    notes: tuple[str, ...] = ()
    who: str = ""

    def metric(self, name: str) -> Measurement | None:
        """The measurement of `name` for the workload as it is asked, or None when there is none."""
        for measurement in self.measurements:
            if measurement.metric == name and not measurement.condition:
                return measurement
        return None

    def curve(self, name: str) -> tuple[Measurement, ...]:
        """The measurements of `name` under varied conditions, as they were taken."""
        return tuple(
            taken for taken in self.measurements if taken.metric == name and taken.condition
        )

    def value(self, name: str) -> float | None:
        """The value of `name`; None when absent or unavailable."""
        measurement = self.metric(name)
        return None if measurement is None else measurement.value

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What its own process noted as to be known before its numbers are believed."""
        return tuple(caution for note in self.notes if (caution := read_line(note)))

    @property
    def environments(self) -> tuple[str, ...]:
        """Ids of the environments that its measurements name, in order of appearance."""
        return tuple(
            dict.fromkeys(taken.environment for taken in self.measurements if taken.environment)
        )

    @property
    def is_baseline(self) -> bool:
        """Whether the plan has no techniques."""
        return not self.plan.techniques


@dataclass(frozen=True)
class Study:
    """Case + Priorities + budget + Trials. `who` asked the question; empty when nobody is known."""

    id: str
    case: Case
    priorities: Priorities
    preset: str = "quick"
    budget_s: float | None = None
    seed: int = 0
    parent_id: str | None = None
    created_at: str = ""
    state: str = "queued"
    reason: str = ""
    trials: tuple[Trial, ...] = field(default=())
    who: str = ""

    @property
    def baseline(self) -> Trial | None:
        """The trial without techniques, if there is one."""
        return next((trial for trial in self.trials if trial.is_baseline), None)

    def trial(self, trial_id: str) -> Trial | None:
        """The trial with this id, or None."""
        return next((trial for trial in self.trials if trial.id == trial_id), None)

    def done(self) -> tuple[Trial, ...]:
        """Trials that finished with measurements."""
        return tuple(trial for trial in self.trials if trial.state == "done")

    def with_trials(self, trials: tuple[Trial, ...]) -> Study:
        """A copy with these trials."""
        return replace(self, trials=trials)
