"""The line in a trial's log that says of an attempt before it that it crashed."""

from __future__ import annotations

import re

from core.study import Trial

_CRASH = re.compile(r"attempt \d+ of \d+ crashed: ")


def crash_note(attempt: int, attempts: int, reason: str) -> str:
    """The line that a trial's log begins with when an attempt before it crashed."""
    return f"attempt {attempt} of {attempts} crashed: {reason}"


def crashes(trial: Trial) -> tuple[str, ...]:
    """The crash_note()s of a trial that was tried again."""
    return tuple(note for note in trial.notes if _CRASH.match(note))
