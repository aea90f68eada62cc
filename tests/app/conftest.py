"""Stores for pages: empty, or filled through the same events that a real study writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app import facts, services
from core.catalogue import models
from core.journal.events import (
    Event,
    KernelsRan,
    MeasurementTaken,
    event,
    study_created,
    trial_queued,
)
from core.measure.child.watchdog import Health
from core.plan import Plan
from core.study import ENDED, Study
from store import open_store
from store.interface import Store

# What the machine of stored studies is, and the one that shows them unless a test says otherwise.
FACTS = {"cpu": "Test CPU", "cores": 2, "torch": "2.13"}


def events_of(study: Study) -> list[Event]:
    """The journal that `study` would have written."""
    found = [study_created(study)]
    for trial in study.trials:
        found.append(
            trial_queued(
                replace(trial, state="queued", attempt=0, measurements=(), kernels=(), notes=())
            )
        )
    environments = {
        one.environment for trial in study.trials for one in trial.measurements if one.environment
    }
    found += [
        event(
            "environment",
            study.id,
            environment=one,
            facts=FACTS,
        )
        for one in sorted(environments)
    ]
    for trial in study.trials:
        if trial.state == "queued":
            continue
        if trial.state != "refused":
            found.append(event("trial-started", study.id, trial.id, attempt=1, pid=1))
            found += [
                event("note", study.id, trial.id, attempt=1, text=note) for note in trial.notes
            ]
            found += [
                MeasurementTaken(1, one).event(study.id, trial.id) for one in trial.measurements
            ]
            found.append(KernelsRan(1, trial.kernels).event(study.id, trial.id))
        if trial.state == "running":
            found.append(
                event("progress", study.id, trial.id, attempt=1, stage="timing", share=0.4)
            )
        if trial.state in ENDED:
            attempt = 0 if trial.state == "refused" else 1
            found.append(
                event(
                    "trial-ended",
                    study.id,
                    trial.id,
                    attempt=attempt,
                    state=trial.state,
                    reason=trial.reason,
                )
            )
    found.append(event("study-state", study.id, state=study.state, reason=study.reason))
    return found


@pytest.fixture(autouse=True)
def _one_thread_for_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of tiny models in child processes: threads would wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def journal() -> Callable[[Study], list[Event]]:
    """Turns a study into the events that would have made it."""
    return events_of


@dataclass
class Jobs:
    """Stands in for the supervisor: remembers what it was asked, starts nothing."""

    store: Store
    asked: list[tuple[str, str]] = field(default_factory=list)
    studies: tuple[str, ...] = ()
    state: Health | None = None
    wish: str = ""
    waiting: int = 0
    plans: tuple[Plan, ...] = ()
    who: str = ""
    elsewhere: str | None = None

    def submit(self, study: Study, plans: tuple[Plan, ...]) -> str:
        self.asked.append(("submit", study.id))
        self.plans, self.who = plans, study.who
        self.store.ingest(
            [study_created(study), event("study-state", study.id, state="queued", reason="")]
        )
        return study.id

    def cancel(self, study_id: str, who: str = "") -> None:
        self.asked.append(("cancel", study_id))
        self.who = who

    def pause(self, study_id: str, who: str = "") -> None:
        self.asked.append(("pause", study_id))
        self.who = who

    def resume(self, study_id: str, who: str = "") -> None:
        self.asked.append(("resume", study_id))
        self.who = who

    def why_not_here(self, study: Study) -> str | None:
        return self.elsewhere

    def active(self) -> tuple[str, ...]:
        return self.studies

    def running(self) -> tuple[str, ...]:
        return self.studies[:1]

    def health(self, study_id: str) -> Health | None:
        return self.state

    def on_its_way(self, study_id: str) -> str:
        return self.wish

    def ahead(self, study_id: str) -> int:
        return self.waiting

    def eta_s(self, study_id: str) -> float | None:
        return 42.0

    def log_tail(self, study_id: str, lines: int = 40) -> list[str]:
        return ["10:00:00 baseline: started", "10:00:09 baseline: done"]

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[services.Services]:
    """Services over an empty store in memory, handed to every page."""
    store = open_store("memory:")
    found = services.Services(store, Jobs(store), tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(services, "get_services", lambda: found)
    monkeypatch.setattr(facts, "here", lambda: FACTS)
    monkeypatch.setattr(
        models,
        "list_models",
        lambda: (models.resolve("pycode-small"), models.resolve("digits-cnn")),
    )
    yield found
    store.close()


@pytest.fixture
def fill(opened: services.Services) -> Callable[[Study], None]:
    """Put a study into the opened store."""
    return lambda study: opened.store.ingest(events_of(study)) and None


@pytest.fixture
def filled(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> services.Services:
    """Services over a store that holds the synthetic study."""
    fill(synthetic_study)
    return opened
