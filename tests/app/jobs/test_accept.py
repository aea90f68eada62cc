"""Which events of a trial the store keeps."""

from __future__ import annotations

from pathlib import Path

from app.jobs.accept import believed, unfit
from core.journal.events import StudyStateChanged, TrialProgressed

STUDY, TRIAL = "s-0000000000000a", "t-0000000000000a"
PLACE = Path(STUDY)


def test_what_no_store_can_keep_is_damaged() -> None:
    endless = TrialProgressed(1, "load", float("inf")).event(STUDY, TRIAL)
    assert unfit(endless) == "a damaged event of the kind progress"
    assert unfit(TrialProgressed(1, "load", 0.5).event(STUDY, TRIAL)) is None


def test_a_journal_of_a_trial_speaks_of_that_attempt_and_the_studys_own_of_the_study() -> None:
    said = TrialProgressed(1, "load", 0.5).event(STUDY, TRIAL)
    state = StudyStateChanged("running").event(STUDY)
    both = [said, state]
    assert believed(PLACE / f"{TRIAL}-1.jsonl", both, STUDY) == [said]
    assert believed(PLACE / f"{TRIAL}-2.jsonl", both, STUDY) == []
    assert believed(PLACE / "study.jsonl", both, STUDY) == both
    assert believed(PLACE / "study.jsonl", both, "s-other") == []
