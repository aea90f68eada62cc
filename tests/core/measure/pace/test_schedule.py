"""The order and the pace of a study, on a clock that moves as the trials say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.planning import plan_study
from core.journal.events import TrialEnded, TrialProgressed, TrialStarted
from core.measure.pace.schedule import Schedule, Turn
from core.priorities import Priorities
from core.study import Study, Trial

# Seconds of each stage on a machine where the quick study takes well under three minutes.
START, LOAD, SERVE, QUALITY = 2.0, 1.0, 2.5, 2.0
TRAINING_STEP, CALIBRATION = 0.3, 4.0


class Machine:
    """Runs turns in no time, on a clock of its own; `slow` times slower than that machine."""

    def __init__(
        self,
        slow: float,
        preset: str = "quick",
        budget_s: float | None = None,
        seconds: float | None = None,
    ) -> None:
        study, plans = plan_study(
            "pycode", "local", "chat", Priorities(), preset=preset, budget_s=budget_s
        )
        trials = tuple(Trial(f"t-{n}", study.id, plan) for n, plan in enumerate(plans))
        self.study: Study = study.with_trials(trials)
        self.slow, self.now = slow, 0.0
        self.schedule = Schedule(self.study, trials, lambda: self.now, seconds, "go on")
        self.turns: list[Turn] = []
        self.kept: set = set()

    def run(self) -> list[Turn]:
        while (turn := self.schedule.next()) is not None:
            self._trial(turn)
            self.turns.append(turn)
        return self.turns

    def _trial(self, turn: Turn) -> None:
        trial, share = turn.trial, (turn.rounds or 12) / 12
        paired = 1.0 if not trial.plan.techniques else 1.3
        self._say(trial, TrialStarted(1))
        self._pass(START)
        self._stage(trial, "load", LOAD)
        for count, one in enumerate(trial.plan.techniques, 1):
            prefix = trial.plan.techniques[:count]
            cost = one.training_steps * TRAINING_STEP + CALIBRATION * one.calibrates
            if prefix not in self.kept:
                self._stage(trial, one.name, cost or 0.2)
            if count in turn.prefixes:
                self.kept.add(prefix)
        self._stage(trial, "serve", SERVE * paired * (0.5 + 0.5 * share))
        self._stage(trial, "quality", QUALITY * paired)
        self._say(trial, TrialEnded(1, "done"))

    def _stage(self, trial: Trial, name: str, seconds: float) -> None:
        self._say(trial, TrialProgressed(1, name, 0.0))
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        self.now += self.slow * seconds

    def _say(self, trial: Trial, content) -> None:
        self.schedule.stages(content.event(trial.study_id, trial.id))


def test_where_the_time_suffices_nothing_changes() -> None:
    machine = Machine(1.0)
    turns = machine.run()
    assert [turn.trial for turn in turns] == list(machine.study.trials)
    assert {turn.rounds for turn in turns} == {None}
    assert machine.now < 150
    assert not machine.schedule.is_late()


@pytest.mark.parametrize("slow", [1.5, 2.0, 3.0, 4.0, 6.0])
def test_a_slower_machine_measures_less_and_ends_in_time(slow: float) -> None:
    machine = Machine(slow)
    turns = machine.run()
    assert machine.now < 175
    assert turns[0].trial.is_baseline
    assert [turn.rounds for turn in turns[:2]] == [None, None]
    assert all(turn.rounds is None or 6 <= turn.rounds < 12 for turn in turns)
    ran = [turn.trial for turn in turns]
    assert sorted([*ran, *machine.schedule.left], key=lambda one: one.id) == sorted(
        machine.study.trials, key=lambda one: one.id
    )


def test_three_times_slower_every_kind_that_does_not_train_is_measured_and_the_time_used() -> None:
    machine = Machine(3.0)
    kinds = {one.kind for turn in machine.run() for one in turn.trial.plan.techniques}
    assert {"quantize", "prune", "cache", "decode"} <= kinds
    assert machine.now > 110
    assert machine.schedule.left
    why = machine.schedule.left_out
    assert why.startswith("left out: ")
    assert "had promised to end within 3 min" in why


def test_the_promise_is_of_the_quick_preset_and_not_of_who_states_a_budget() -> None:
    for machine in (Machine(20.0, budget_s=4000.0), Machine(20.0, preset="standard")):
        assert len(machine.run()) == len(machine.study.trials)
        assert {turn.rounds for turn in machine.turns} == {None}


@pytest.mark.parametrize(("preset", "budget_s"), [("quick", None), ("standard", 5000.0)])
def test_seconds_stand_in_the_place_of_promise_and_budget(
    preset: str, budget_s: float | None
) -> None:
    machine = Machine(1.0, preset, budget_s, seconds=60.0)
    turns = machine.run()
    assert 2 <= len(turns) < len(machine.study.trials)
    assert machine.now < 66
    assert machine.schedule.left_out.endswith("it was asked to end within 1 min; go on")
    machine.now = 61.0
    assert machine.schedule.is_late()
    # Not even the first trials run beyond them.
    short = Machine(1.0, seconds=1.0)
    assert short.schedule.next() is not None
    short.now = 1.5
    assert short.schedule.is_late()
    assert short.schedule.next() is None


def test_no_trial_starts_after_the_budget() -> None:
    machine = Machine(1.0, budget_s=20.0)
    turns = machine.run()
    assert 20 < machine.now < 40
    assert [turn.trial for turn in turns] == list(machine.study.trials[: len(turns)])
    assert machine.schedule.left
    assert machine.schedule.left_out == "the budget of 20 s was used up before this trial"


def test_only_a_trial_after_the_first_two_is_ended_for_being_late() -> None:
    machine = Machine(1.0)
    late = []
    for _ in range(3):
        machine.now = 20.0
        assert machine.schedule.next() is not None
        machine.now = 170.0
        late.append(machine.schedule.is_late())
    assert late == [False, False, True]
    machine.now = 160.0
    assert not machine.schedule.is_late()


def test_shared_prefixes_are_asked_for_of_the_first_that_makes_them() -> None:
    lengths = {turn.trial.plan.title: turn.prefixes for turn in Machine(1.0).run() if turn.prefixes}
    assert list(lengths.values()) == [(1,), (2,)]


def test_a_resumed_study_measures_what_was_left_out() -> None:
    machine = Machine(3.0)
    machine.run()
    left = tuple(replace(trial, state="cancelled") for trial in machine.schedule.left)
    again = Schedule(machine.study, left, lambda: 0.0)
    turn = again.next()
    assert turn is not None
    assert turn.trial == left[0]
