"""Live: what it says when a trial is stuck, is tried again or waits for its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app import services
from core.journal.events import event
from core.measure.child.crashes import crash_note
from core.measure.child.watchdog import Health
from core.study import Study

MAIN = Path(__file__).parents[3] / "app" / "main.py"
STUCK = "stuck: it does not answer, no sign of life for 12 s; it is ended after 30 s"


def show() -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at._page_hash = calc_hash("live")
    at.run()
    assert not at.exception
    return at


def said(at: AppTest) -> str:
    """Warnings, notices and text, without the backslashes that keep text from being Markdown."""
    parts = (one.value for kind in ("warning", "info", "markdown") for one in at.get(kind))
    return "\n".join(str(part) for part in parts).replace("\\", "")


@pytest.fixture
def running(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> Study:
    """A stored study whose second trial runs."""
    first, second, *_ = synthetic_study.trials
    second = replace(second, state="running", measurements=(), kernels=(), reason="", notes=())
    study = replace(synthetic_study, state="running", trials=(first, second))
    fill(study)
    return study


def test_a_stuck_trial_is_shown_with_a_sentence(running: Study, opened: services.Services) -> None:
    trial = running.trials[1]
    opened.jobs.state = Health(trial.id, 1, 12.0, 0, STUCK)  # type: ignore[attr-defined]
    at = show()
    assert STUCK in said(at)
    assert trial.plan.title in at.warning[0].value.replace("\\", "")
    assert at.dataframe[0].value["State"].tolist()[1] == "! stuck"


def test_a_healthy_trial_gets_no_warning(running: Study, opened: services.Services) -> None:
    opened.jobs.state = Health(running.trials[1].id, 1, 0.4, 0, "")  # type: ignore[attr-defined]
    at = show()
    assert not at.warning
    assert "running" in at.dataframe[0].value["State"].tolist()[1]
    assert "Attempt" not in at.dataframe[0].value


def test_a_trial_that_is_tried_again_says_why(running: Study, opened: services.Services) -> None:
    trial = running.trials[1]
    text = crash_note(1, 3, "its process died by SIGSEGV")
    opened.store.ingest(
        [
            event("trial-started", running.id, trial.id, attempt=2, pid=1),
            event("note", running.id, trial.id, attempt=2, text=text),
        ]
    )
    at = show()
    assert "attempt 1 of 3 crashed: its process died by SIGSEGV" in said(at)
    assert at.dataframe[0].value["Attempt"].tolist() == [1, 2]


def test_a_study_that_waits_says_for_how_many(running: Study, opened: services.Services) -> None:
    opened.jobs.waiting = 2  # type: ignore[attr-defined]
    assert "2 other studies first" in said(show())


def test_a_wish_on_its_way_is_shown_until_it_is_done(
    running: Study, opened: services.Services
) -> None:
    opened.jobs.wish = "paused"  # type: ignore[attr-defined]
    assert "Pausing: the trial that runs now ends first" in said(show())
