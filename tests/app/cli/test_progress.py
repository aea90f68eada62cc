"""What a study says on the way: seconds of each trial, and about how long the rest takes."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from app.cli.progress import StudyProgress
from app.planning import plan_study
from core import format as formats
from core.journal.events import (
    EventContent,
    TrialEnded,
    TrialProgressed,
    TrialStarted,
    trial_queued,
)
from core.priorities import Priorities
from core.study import Trial


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_has_the_seconds_of_the_trial_and_the_time_left(terminal: bool) -> None:
    study, plans = plan_study(
        "pycode-small", "local", "chat", Priorities(), ("weight-int8", "kv-cache")
    )
    trials = [Trial(f"t-{n}", study.id, plan) for n, plan in enumerate(plans)]
    out, now = io.StringIO(), [0.0]
    console = SimpleNamespace(err=out, terminal=terminal)
    progress = StudyProgress(console, study.id, len(plans), clock=lambda: now[0])

    def say(content: EventContent, trial: Trial, after: float = 0.0) -> None:
        now[0] += after
        progress(content.event(study.id, trial.id))

    for trial in trials:
        progress(trial_queued(trial))
    say(TrialEnded(0, "refused", "it cannot"), trials[3])
    for trial in trials[:2]:
        say(TrialStarted(1), trial)
        say(TrialProgressed(1, "load", 0.0), trial, 2.0)
        say(TrialProgressed(1, "serve", 0.0), trial, 1.0)
        say(TrialEnded(1, "done"), trial, 7.0)
    lines = [line.split("\x1b[K")[-1] for line in out.getvalue().split("\n")]
    assert lines[0] == f"[1/4] refused   {plans[3].title}: it cannot"
    assert lines[1].startswith("[2/4] done      baseline, 10 s; about ")
    assert lines[2] == f"[3/4] done      {plans[1].title}, 10 s; about 10 s left"
    assert ("serve 0%" in out.getvalue()) is terminal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (7.4, "7 s"), (59.6, "1 min"), (80, "1 min 20 s"), (180, "3 min")],
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text
