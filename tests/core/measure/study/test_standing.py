"""How a study stands by its events, as a store would answer; and the line of a trial."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from core.journal.events import (
    KernelsRan,
    MeasurementTaken,
    NoteWritten,
    StudyStateChanged,
    TrialEnded,
    TrialStarted,
)
from core.journal.journal import Journal
from core.measure.study.said import line
from core.measure.study.standing import Standing, standing_of
from core.study import Study
from store import open_store
from tests.app.conftest import events_of


def attempts(study: Study) -> list:
    """A trial that crashed, ran again and was ended twice, and one that runs."""
    first, second = study.trials[0].id, study.trials[1].id
    taken = study.trials[0].measurements[0]
    said = [
        (first, TrialStarted(1, 7)),
        (first, MeasurementTaken(1, taken)),
        (first, NoteWritten(2, "attempt 1 of 3 crashed: it died", "quiet")),
        (first, TrialStarted(2, 8)),
        (first, MeasurementTaken(2, replace(taken, samples=(1.0, 2.0)))),
        (first, KernelsRan(2, study.trials[0].kernels)),
        (first, TrialEnded(2, "done")),
        (first, TrialEnded(2, "cancelled", "late")),
        (second, TrialStarted(1, 9)),
    ]
    return [content.event(study.id, trial, "Ada") for trial, content in said]


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_a_store_does(synthetic_study: Study, seed: int) -> None:
    events = [*events_of(synthetic_study), *attempts(synthetic_study)]
    events = [event for event in events if event.is_journalled]
    events.append(StudyStateChanged("paused", "so").event(synthetic_study.id))
    random.Random(seed).shuffle(events)
    store = open_store("memory:")
    store.ingest(events)
    ours, theirs = Standing(events).study, store.study(synthetic_study.id)
    assert ours is not None
    assert theirs is not None
    assert ours.with_trials(()) == theirs.with_trials(())
    assert ours.trials == theirs.trials
    assert ours.trials[0].who == "Ada"


def test_journals_of_others_are_passed_over(synthetic_study: Study, tmp_path: Path) -> None:
    place = tmp_path / synthetic_study.id
    with Journal(place / "study.jsonl") as journal:
        journal.extend(event for event in events_of(synthetic_study) if not event.trial_id)
        journal.append(StudyStateChanged("cancelled").event("s-other"))
    with Journal(place / "t-0000-1.jsonl") as journal:
        journal.append(TrialEnded(1, "done").event(synthetic_study.id, "t-0001"))
    found = standing_of(place).study
    assert found is not None
    assert found.state == "done"
    assert found.trials == ()
    assert standing_of(tmp_path / "nothing").study is None


def test_the_line_of_a_trial_has_its_numbers_with_their_ratios(synthetic_study: Study) -> None:
    baseline, *others = (line(synthetic_study, trial) for trial in synthetic_study.trials)
    assert baseline.startswith("[1/11] done      baseline; TTFT")
    assert "x)" not in baseline
    assert "Size 10.1 MB (0.53x)" in others[0]
    refused = next(text for text in others if "refused" in text)
    assert "small is not at hand" in refused
    assert ";" not in refused
