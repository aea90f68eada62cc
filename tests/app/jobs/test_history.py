"""The log of a study in words: times in UTC, and the date where the day is another."""

from __future__ import annotations

from dataclasses import replace

from app.jobs.history import eta_s, log_tail
from core.plan import Plan
from core.study import Study, Trial


def of(study: Study, trial_id: str, started: str, ended: str) -> Trial:
    """A done trial with these times."""
    plan = Plan(study.case)
    return Trial(trial_id, study.id, plan, "done", started_at=started, ended_at=ended)


def test_a_study_over_midnight_says_the_day(synthetic_study: Study) -> None:
    late = of(synthetic_study, "t-1", "2026-11-21T23:58:00.000", "2026-11-21T23:59:30.000")
    over = of(synthetic_study, "t-2", "2026-11-21T23:59:40.000", "2026-11-22T00:00:40.000")
    made = replace(synthetic_study, created_at="2026-11-21T23:57:00.000")
    night = made.with_trials((late, over))
    title = late.plan.title
    assert log_tail(night, 40) == [
        f"23:58:00 {title}: started",
        f"23:59:30 {title}: done",
        f"23:59:40 {title}: started",
        f"2026-11-22 00:00:40 {title}: done",
    ]
    assert eta_s(night) == 0.0
    queued = replace(late, id="t-3", state="queued", started_at="", ended_at="")
    assert eta_s(night.with_trials((late, over, queued))) == (90 + 60) / 2


def test_a_time_that_is_none_counts_for_nothing(synthetic_study: Study) -> None:
    odd = of(synthetic_study, "t-1", "yesterday", "2026-11-21T23:59:30.000")
    good = of(synthetic_study, "t-2", "2026-11-21T00:00:00.000+02:00", "2026-11-20T22:00:10.000")
    left = replace(good, id="t-3", state="queued")
    assert eta_s(synthetic_study.with_trials((odd, good, left))) == 10.0
