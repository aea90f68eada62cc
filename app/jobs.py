"""The supervisor: runs a study's trials one at a time in child processes and keeps what they say
in the store.

No st.* here. The way of an event: child -> its journal (on disk) and its stdout -> Supervisor ->
store. A study's folder
holds the supervisor's own journal, one journal and one log per attempt of a trial, and a marker
that asks to cancel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.child import Child
from core.errors import BadInput, TrimtabError
from core.events import Event, event, study_created, trial_queued
from core.ids import new_id
from core.journal import Journal, read
from core.measure.presets import preset
from core.plan import Plan
from core.predict import fit
from core.study import ENDED, Study, Trial
from store.interface import Store

CANCEL = "cancel-requested"
Listener = Callable[[Event], None]


class Supervisor:
    """One thread, one running trial; every method may be called from any thread and returns at
    once.
    """

    def __init__(self, store: Store, folder: Path, listener: Listener | None = None) -> None:
        self._store = store
        self._folder = folder
        self._listener = listener
        self._changed = threading.Condition()
        self._queue: list[str] = []
        self._current = ""
        self._stop: dict[str, str] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="trimtab-supervisor", daemon=True)
        self._thread.start()

    def submit(self, study: Study, plans: tuple[Plan, ...]) -> str:
        """Queue a study with one trial per plan; plans that cannot run are refused with their
        reason at once.
        """
        events = [study_created(study)]
        for plan in plans:
            trial = Trial(new_id("t"), study.id, plan)
            events.append(trial_queued(trial))
            reason = plan.refuse() or fit(plan)
            if reason is not None:
                events.append(
                    event(
                        "trial-ended", study.id, trial.id, attempt=0, state="refused", reason=reason
                    )
                )
        events.append(event("study-state", study.id, state="queued", reason=""))
        self._keep(study.id, events)
        self._enqueue(study.id)
        return study.id

    def cancel(self, study_id: str) -> None:
        """Kill the running trial and give up the queued ones."""
        self._ask(study_id, "cancelled")

    def pause(self, study_id: str) -> None:
        """Let the running trial end, then stop."""
        self._ask(study_id, "paused")

    def resume(self, study_id: str) -> None:
        """Go on with every trial that has not ended or was cancelled; finished ones are never run
        again.
        """
        self.ingest_journals(study_id)
        study = self._study(study_id)
        if study.state == "done" and not _left(study):
            raise BadInput(
                f"study {study_id} is done: every trial has ended, there is nothing to resume"
            )
        (self._folder / study_id / CANCEL).unlink(missing_ok=True)
        with self._changed:
            self._stop.pop(study_id, None)
        self._enqueue(study_id)

    def recover(self) -> tuple[str, ...]:
        """Read the journals of studies that a killed owner left, and mark them paused; returns
        their ids.
        """
        found = []
        for summary in self._store.studies(limit=1000):
            if summary.state in ("running", "queued"):
                self.ingest_journals(summary.id)
                reason = f"interrupted; go on with: trimtab resume {summary.id}"
                self._keep(
                    summary.id, [event("study-state", summary.id, state="paused", reason=reason)]
                )
                found.append(summary.id)
        return tuple(found)

    def ingest_journals(self, study_id: str) -> int:
        """Keep every event of the study's journals that the store does not have; returns how many
        were new.
        """
        events: list[Event] = []
        for path in sorted((self._folder / study_id).glob("*.jsonl")):
            events += read(path)[0]
        return self._store.ingest(sorted(events, key=lambda one: one.id))

    def running(self) -> tuple[str, ...]:
        """Ids of the studies that are running or waiting, the running one first."""
        with self._changed:
            return tuple(filter(None, (self._current, *self._queue)))

    def eta_s(self, study_id: str) -> float | None:
        """Seconds until the study ends if the rest takes as long as the ended trials; None before
        the first ended.
        """
        study = self._store.study(study_id)
        if study is None:
            return None
        took = [_seconds(trial) for trial in study.trials if trial.state in ("done", "failed")]
        known = [seconds for seconds in took if seconds is not None]
        left = sum(trial.state not in ENDED for trial in study.trials)
        return sum(known) / len(known) * left if known else None

    def log_tail(self, study_id: str, lines: int = 40) -> list[str]:
        """The newest lines of what happened, oldest first."""
        study = self._store.study(study_id)
        if study is None:
            return []
        text: list[str] = []
        for trial in study.trials:
            if trial.state == "queued":
                continue
            text.append(
                f"{trial.started_at[11:19]} {trial.plan.title}: started"
                if trial.started_at
                else trial.plan.title
            )
            text += [f"    {note}" for note in trial.notes]
            if trial.state in ENDED:
                ended = f"{trial.ended_at[11:19]} {trial.plan.title}: {trial.state}"
                text.append(f"{ended} {trial.reason}".rstrip())
        return text[-lines:]

    def wait(self, study_id: str) -> Study:
        """Block until the study is no longer running or queued here; returns it."""
        with self._changed:
            while study_id in self.running_unlocked() and not self._closed:
                self._changed.wait(0.2)
        return self._study(study_id)

    def running_unlocked(self) -> tuple[str, ...]:
        """As running(), for callers that hold the condition."""
        return tuple(filter(None, (self._current, *self._queue)))

    def close(self) -> None:
        """Kill the running trial and end the thread; the study stays resumable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _ask(self, study_id: str, state: str) -> None:
        self._study(study_id)
        with self._changed:
            active = study_id in self.running_unlocked()
            if active:
                self._stop[study_id] = state
            if study_id in self._queue:
                self._queue.remove(study_id)
                active = False
            self._changed.notify_all()
        if not active:
            self._give_up(study_id, state)

    def _give_up(self, study_id: str, state: str) -> None:
        """End a study that is not running: its open trials when cancelled, then the study's own
        state.
        """
        events = []
        if state == "cancelled":
            for trial in self._study(study_id).trials:
                if trial.state not in ENDED:
                    events.append(
                        _ended(trial, trial.attempt, "cancelled", "cancelled by the user")
                    )
        events.append(event("study-state", study_id, state=state, reason="by the user"))
        self._keep(study_id, events)
        with self._changed:
            self._stop.pop(study_id, None)

    def _enqueue(self, study_id: str) -> None:
        with self._changed:
            if study_id not in self.running_unlocked():
                self._queue.append(study_id)
                self._changed.notify_all()

    def _study(self, study_id: str) -> Study:
        study = self._store.study(study_id)
        if study is None:
            raise BadInput(
                f"there is no study {study_id!r} in this store; `trimtab studies` lists them"
            )
        return study

    def _keep(self, study_id: str, events: list[Event]) -> None:
        """First the disk, then the store."""
        with Journal(self._folder / study_id / "study.jsonl") as journal:
            for one in events:
                journal.append(one)
        self._ingest(events)

    def _ingest(self, events: list[Event]) -> None:
        self._store.ingest(events)
        if self._listener is not None:
            for one in events:
                self._listener(one)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                study_id = self._current = self._queue.pop(0)
            try:
                self._run_study(study_id)
            except (TrimtabError, OSError) as error:
                self._fail(study_id, str(error))
            finally:
                with self._changed:
                    self._current = ""
                    self._changed.notify_all()

    def _fail(self, study_id: str, reason: str) -> None:
        """Say in the study why it stopped; when even that cannot be kept, the journal and the
        next start tell.
        """
        try:
            self._keep(study_id, [event("study-state", study_id, state="paused", reason=reason)])
        except (TrimtabError, OSError) as error:
            if self._listener is not None:
                self._listener(
                    event("study-state", study_id, state="paused", reason=f"{reason}; {error}")
                )

    def _run_study(self, study_id: str) -> None:
        study = self._study(study_id)
        self._keep(study_id, [event("study-state", study_id, state="running", reason="")])
        began = time.monotonic()
        for trial in _left(study):
            wanted = self._wanted(study_id)
            if wanted or self._closed:
                break
            if study.budget_s is not None and time.monotonic() - began > study.budget_s:
                reason = f"the budget of {study.budget_s:g} s was used up before this trial"
                self._keep(study_id, [_ended(trial, trial.attempt, "cancelled", reason)])
                continue
            self._run_trial(study, trial)
        wanted = self._wanted(study_id)
        if wanted:
            self._give_up(study_id, wanted)
        elif not self._closed:
            self._keep(study_id, [event("study-state", study_id, state="done", reason="")])

    def _wanted(self, study_id: str) -> str:
        """What the user asked this study to become, or an empty string; a marker file asks from
        another process.
        """
        marker = self._folder / study_id / CANCEL
        if marker.exists():
            marker.unlink(missing_ok=True)
            with self._changed:
                self._stop[study_id] = "cancelled"
        with self._changed:
            return self._stop.get(study_id, "")

    def _run_trial(self, study: Study, trial: Trial) -> None:
        attempt = trial.attempt + 1
        child = Child(self._folder / study.id, study, trial, attempt)
        deadline = time.monotonic() + preset(study.preset).wall_s
        end: Event | None = None
        try:
            for batch in child.batches():
                self._ingest(batch)
                if self._closed:
                    return
                if self._wanted(study.id) == "cancelled":
                    end = _ended(trial, attempt, "cancelled", "cancelled by the user")
                    break
                if time.monotonic() > deadline:
                    allowed = preset(study.preset).wall_s
                    reason = f"it ran longer than the {allowed:g} s that the preset allows"
                    end = _ended(trial, attempt, "failed", reason)
                    break
        finally:
            child.kill()
        self._ingest(child.unread())
        if end is None and not child.ended:
            end = _ended(trial, attempt, "failed", child.death())
        if end is not None:
            self._keep(study.id, [end])


def _ended(trial: Trial, attempt: int, state: str, reason: str) -> Event:
    return event(
        "trial-ended", trial.study_id, trial.id, attempt=attempt, state=state, reason=reason
    )


def _left(study: Study) -> list[Trial]:
    """Trials that resume runs: not ended, or cancelled."""
    return [
        trial for trial in study.trials if trial.state not in ENDED or trial.state == "cancelled"
    ]


def _seconds(trial: Trial) -> float | None:
    from datetime import datetime

    if not trial.started_at or not trial.ended_at:
        return None
    return (
        datetime.fromisoformat(trial.ended_at) - datetime.fromisoformat(trial.started_at)
    ).total_seconds()
