"""What has happened to a study, in words and seconds, from its stored trials alone."""

from __future__ import annotations

from core.data.times import moment
from core.study import ENDED, Study, Trial


def eta_s(study: Study) -> float | None:
    """Seconds until the study ends if the rest takes as long as the ended trials; None before the
    first ended.
    """
    took = [_seconds(trial) for trial in study.trials if trial.state in ("done", "failed")]
    known = [seconds for seconds in took if seconds is not None]
    left = sum(trial.state not in ENDED for trial in study.trials)
    return sum(known) / len(known) * left if known else None


def log_tail(study: Study, lines: int) -> list[str]:
    """The newest lines of what happened, oldest first; times are UTC, with the date on all days but
    the study's first.
    """
    text: list[str] = []
    day = study.created_at[:10]
    for trial in study.trials:
        if trial.state == "queued":
            continue
        again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
        text.append(
            f"{_clock(trial.started_at, day)} {trial.plan.title}: started{again}"
            if trial.started_at
            else trial.plan.title
        )
        text += [f"    {note}" for note in trial.notes]
        if trial.state in ENDED:
            ended = f"{_clock(trial.ended_at, day)} {trial.plan.title}: {trial.state}"
            text.append(f"{ended} {trial.reason}".rstrip())
    return text[-lines:]


def _clock(at: str, day: str) -> str:
    return at[11:19] if not day or at[:10] == day else at[:19].replace("T", " ")


def _seconds(trial: Trial) -> float | None:
    try:
        return (moment(trial.ended_at) - moment(trial.started_at)).total_seconds()
    except ValueError:
        return None
