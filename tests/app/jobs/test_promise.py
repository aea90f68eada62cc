"""Studies of child processes that share what they train, and that end when they promised."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.jobs.supervisor import Supervisor
from app.planning import plan_study
from core.journal.events import Event
from core.measure.child.spawn import Spawned
from core.measure.pace.prefixes import PREFIXES
from core.measure.pace.schedule import Schedule
from core.plan import Plan
from core.planner.presets import PRESETS
from core.priorities import Priorities
from core.study import Study
from core.techniques import parse
from core.verdict.documents import study_document
from store.interface import Store

BASELINE = "pycode-small"
WORKER = Path(__file__).with_name("brief_worker.py")
BRIEFLY = partial(Spawned, command=(sys.executable, str(WORKER)))
Make = Callable[..., Supervisor]


def planned(*techniques: str) -> tuple[Study, tuple[Plan, ...]]:
    return plan_study(BASELINE, "local", "autocomplete", Priorities(), techniques)


def test_trials_that_share_a_trained_prefix_train_it_once(store: Store, tmp_path: Path) -> None:
    study, (baseline, *_) = planned("prune-mlp", "distill-soft:steps=2", "weight-int8")
    prune, distill, int8 = map(parse, ("prune-mlp", "distill-soft:steps=2", "weight-int8"))
    plans = (
        replace(baseline, techniques=(prune, distill)),
        replace(baseline, techniques=(prune, distill, int8)),
    )
    trained: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.body["stage"] == "distill-soft":
            trained.append(event.trial_id)

    jobs = Supervisor(store, tmp_path, listen, BRIEFLY)
    try:
        jobs.submit(study, plans)
        first, second = jobs.wait(study.id).trials
    finally:
        jobs.close()
    assert (first.state, second.state) == ("done", "done")
    assert set(trained) == {first.id}
    for trial in (first, second):
        assert any("2 steps of" in note for note in trial.notes)
        assert any(row.metric == "learning_items" for row in trial.measurements)
    prepared = second.metric("prepare_s")
    assert prepared is not None
    assert f"was made by trial {first.id} in" in prepared.method
    assert not (tmp_path / study.id / PREFIXES).exists()


def test_a_study_leaves_out_what_its_promise_has_no_time_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make()
    study, plans = planned("weight-int8", "weight-int4", "kv-cache")
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], promise_s=0.05))
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    assert ended.state == "done"
    assert [trial.state for trial in ended.trials[:2]] == ["done", "done"]
    out = ended.trials[2:]
    assert {trial.state for trial in out} == {"cancelled"}
    assert all(trial.reason.startswith("left out: ") for trial in out)
    (warning,) = study_document(ended)["warnings"]
    assert warning.startswith(f"{len(out)} of {len(plans)} plans were left out")
    # Resuming measures them, as long as it takes when nothing is promised.
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], promise_s=None))
    supervisor.resume(study.id)
    again = supervisor.wait(study.id)
    assert {trial.state for trial in again.trials} == {"done"}
    assert study_document(again)["warnings"] == []


def test_a_trial_that_runs_when_the_time_is_over_is_ended_and_left_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make("spin")
    study, plans = planned("weight-int8")
    monkeypatch.setattr(Schedule, "is_late", lambda self: bool(self.stages.running))
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    assert ended.state == "done"
    # The worker of this test spins for the baseline; the other may be done before anybody looks.
    assert ended.trials[0].state == "cancelled"
    assert ended.trials[0].reason.startswith("left out: ")
