"""One attempt of a trial, from the start of its process to an outcome in words.

Whether another attempt follows is decided in runner.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.journal.events import EnvironmentRecorded, Event, TrialEnded
from core.measure.child.child import Child
from core.measure.child.limits import TrialLimits
from core.measure.child.watchdog import Health, Verdict, Watchdog

CLOSED, CANCELLED, LATE = "closed", "cancelled", "late"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `end` is the trial's own last event, when it is to be kept as the end;
    `rescued` are events that its journal lost; `retry` when a crash may be tried again.
    """

    state: str
    reason: str = ""
    retry: bool = False
    end: Event | None = None
    rescued: tuple[Event, ...] = ()


class Attempt:
    """Runs and watches one child. `health()` may be asked from any thread."""

    def __init__(
        self, child: Child, limits: TrialLimits, folder: Path, number: int, trial: str
    ) -> None:
        self._child = child
        self._watch = Watchdog(limits, child.family, folder)
        self._number = number
        self._trial = trial

    def health(self) -> Health:
        """How the running trial is."""
        return self._watch.health(self._trial, self._number)

    def run(self, keep: Callable[[list[Event]], None], asked: Callable[[], str]) -> Outcome:
        """Hand events to `keep` until the trial ends, is ended by the watchdog, or `asked` returns
        CLOSED, CANCELLED or LATE. Nothing of the child's family lives afterwards.
        """
        child = self._child
        stop, verdict = "", None
        try:
            for batch in child.batches():
                keep(batch)
                ready = any(event.is_a(EnvironmentRecorded) for event in batch)
                verdict = self._watch.look(child.beats(), len(batch), ready)
                stop = asked()
                if stop or verdict is not None or child.end is not None:
                    break
            if not stop and verdict is None and child.hangs_on():
                what = "its process closed its output and went on without saying how it ended"
                verdict = Verdict(what, retry=True)
        finally:
            left = child.kill()
        keep(child.rest())
        if stop == CLOSED:
            return Outcome(CLOSED)
        outcome = self._judge(stop, verdict)
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            return Outcome(
                "failed", f"{outcome.reason or 'it ended'}; the kernel could not end {pids}"
            )
        return outcome

    def _judge(self, stop: str, verdict: Verdict | None) -> Outcome:
        child = self._child
        rescued = tuple(event for event in child.unwritten() if not event.is_a(TrialEnded))
        if stop == LATE and not child.end_is_written():
            return Outcome(LATE, rescued=rescued)
        if stop == CANCELLED:
            return Outcome("cancelled", "cancelled by the user", rescued=rescued)
        if child.wrong:
            reason = f"{child.wrong}: nothing that followed was believed"
            return Outcome("failed", reason, rescued=rescued)
        if child.end is not None and child.end_is_written():
            return _as_said(child.end)
        if verdict is not None:
            return Outcome("failed", verdict.reason, verdict.retry, rescued=rescued)
        if rescued or child.end is not None:
            reason = (
                f"its journal {child.journal.name} was removed or damaged while it ran; the events"
                " that are missing there are kept in the study's own"
            )
            return Outcome("failed", reason, rescued=rescued)
        reason, retry = child.death()
        return Outcome("failed", reason, retry)


def _as_said(event: Event) -> Outcome:
    """The end that the trial declared, unless its words are not fit to be shown."""
    end = event.content()
    assert isinstance(end, TrialEnded)
    reason = sentence(end.reason)
    return Outcome(end.state, reason, end=event if reason == end.reason else None)


def sentence(text: str, most: int = 600) -> str:
    """`text` on one line, without control characters, cut at `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"
