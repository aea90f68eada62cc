"""The supervisor: runs the trials of studies, one at a time on each device, in child processes and
keeps what they say in the store.

No st.* here. An event goes from the child to its journal (on disk) and its stdout, to Supervisor,
to the store. A study's folder holds the supervisor's own journal, one journal and one log per
attempt of a trial, what prefixes.py keeps, and a marker that asks to cancel. How a trial is run,
watched and tried again is core.measure.child's.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from app.jobs import history
from app.jobs.accept import believed, unfit
from app.jobs.elsewhere import HERE, STUDY
from app.jobs.going_on import why_not_here
from app.jobs.listeners import Listener, Listeners
from app.jobs.queues import Queues
from core.errors import BadInput, StoreError, TrimtabError
from core.ids import new_id
from core.journal.events import Event, StudyStateChanged, named, study_created, trial_queued
from core.journal.journal import Journal
from core.measure.child.attempt import CANCELLED, CLOSED, LATE
from core.measure.child.devices import devices
from core.measure.child.limits import TrialLimits, limits_for
from core.measure.child.orphans import end_orphans
from core.measure.child.runner import Runner, ended
from core.measure.child.spawn import Spawned, Starter
from core.measure.child.watchdog import Health, disk_too_full
from core.measure.pace import prefixes as kept
from core.measure.pace.schedule import Schedule, open_trials, without_baseline
from core.plan import Plan
from core.predict import fit
from core.study import ENDED, Study, Trial
from core.techniques.kinds import refuse
from store.health.check import take_in
from store.interface import Store

CANCEL = "cancel-requested"
_INTERRUPTED = "interrupted"
logger = logging.getLogger(__name__)


class Supervisor:
    """A thread and at most one running trial for each device; every method may be called from any
    thread and returns at once. `starter` and `limits` are for tests.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        listener: Listener | None = None,
        starter: Starter = Spawned,
        limits: Callable[[Plan, str], TrialLimits] = limits_for,
    ) -> None:
        self._store = store
        self._folder = folder
        self._listeners = Listeners(listener)
        self._limits = limits
        self._queues = Queues()
        self._runner = Runner(
            folder, starter, limits, self._keep, self._ingest, self._must_stop, self._who, unfit
        )
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._stop: dict[str, str] = {}
        self._schedules: dict[str, Schedule] = {}
        self._actors: dict[str, str] = {}

    def submit(self, study: Study, plans: tuple[Plan, ...]) -> str:
        """Queue a study with one trial per plan; plans that cannot run are refused with their
        reason at once.
        """
        self._refuse_to_write()
        self._act(study.id, study.who)
        events = [study_created(study)]
        for plan in plans:
            trial = Trial(new_id("t"), study.id, plan)
            events.append(trial_queued(trial))
            reason = refuse(plan) or fit(plan)
            if reason is not None:
                events.append(ended(trial, 0, "refused", reason))
        events.append(StudyStateChanged("queued").event(study.id))
        self._keep(study.id, events)
        self._enqueue(study)
        return study.id

    def cancel(self, study_id: str, who: str = "") -> None:
        """Kill the running trial and give up the queued ones."""
        self._ask(study_id, "cancelled", who)

    def pause(self, study_id: str, who: str = "") -> None:
        """Let the running trial end, then stop."""
        self._ask(study_id, "paused", who)

    def interrupt(self, study_id: str, who: str = "") -> None:
        """Kill the running trial and stop; the study stays resumable. Nothing when it does not run
        or wait.
        """
        if study_id in self.active():
            self._ask(study_id, _INTERRUPTED, who)

    def listening(self, listener: Listener) -> AbstractContextManager[None]:
        """Inside, `listener` hears of every event that is kept, in the threads that keep them."""
        return self._listeners.joined(listener)

    def resume(self, study_id: str, who: str = "") -> None:
        """Go on with every trial that has not ended or was cancelled; finished ones are never run
        again.
        """
        self._refuse_to_write()
        if study_id not in self.active():
            self.ingest_journals(study_id)
        study = self._study(study_id)
        if study.state == "done" and not open_trials(study):
            raise BadInput(
                f"study {study_id} is done: every trial has ended, there is nothing to resume"
            )
        why = self.why_not_here(study)
        if why is not None:
            raise BadInput(f"study {study_id} cannot go on here: {why}")
        orphans = end_orphans({trial.id for trial in study.trials})
        if orphans.owners:
            raise BadInput(
                f"study {study_id} is being run by another process (PID {orphans.owners[0]}):"
                " wait for it, or end that process first"
            )
        (self._folder / study_id / CANCEL).unlink(missing_ok=True)
        self._act(study_id, who)
        with self._lock:
            self._stop.pop(study_id, None)
        self._enqueue(study)

    def why_not_here(self, study: Study) -> str | None:
        """See going_on.why_not_here."""
        return why_not_here(self._store, self._folder, study)

    def recover(self) -> tuple[str, ...]:
        """Take up what a killed owner left: end the processes that outlived it, read the journals
        and mark its studies paused; returns their ids.
        """
        recovered: list[str] = []
        if self._store.read_only:
            return ()
        orphans = end_orphans().orphans
        if orphans:
            logger.warning("ended %d processes that a killed supervisor had left", orphans)
        kept.clear_old(self._folder)
        active = self.active()
        for summary in self._store.studies(limit=1000):
            if summary.state not in ("running", "queued") or summary.id in active:
                continue
            study = self._study(summary.id)
            if end_orphans({trial.id for trial in study.trials}).owners:
                continue
            self.ingest_journals(summary.id)
            reason = f"interrupted; go on with: trimtab resume {summary.id}"
            self._keep(summary.id, [StudyStateChanged("paused", reason).event(summary.id)])
            recovered.append(summary.id)
        return tuple(recovered)

    def ingest_journals(self, study_id: str) -> int:
        """Keep every believable event of the study's journals that the store does not have; returns
        how many were new. An id that is no name of a folder in ours has none.
        """
        plain = study_id.isprintable() and Path(study_id).name == study_id != ".."
        if self._store.read_only or not plain or len(os.fsencode(study_id)) > 200:
            return 0
        taken = take_in(self._store, self._folder, study_id, believed)
        for notice in taken.notices:
            logger.warning("%s", notice)
        return taken.new

    def active(self) -> tuple[str, ...]:
        """Ids of the studies that are running or waiting, the running ones first."""
        return self._queues.active()

    def running(self) -> tuple[str, ...]:
        """Ids of the studies that run now; those that wait are in active()."""
        return self._queues.running()

    def health(self, study_id: str) -> Health | None:
        """How the study's running trial is; None when none runs here."""
        return self._runner.health(study_id)

    def ahead(self, study_id: str) -> int:
        """How many studies run or wait before this one on its device."""
        return self._queues.ahead(study_id)

    def on_its_way(self, study_id: str) -> str:
        """The state that the study was asked to take as soon as it can: paused, cancelled, or
        empty.
        """
        with self._lock:
            return _lasting(self._stop.get(study_id, ""))

    def eta_s(self, study_id: str) -> float | None:
        """See history.eta_s."""
        study = self._store.study(study_id)
        return None if study is None else history.eta_s(study)

    def log_tail(self, study_id: str, lines: int = 40) -> list[str]:
        """See history.log_tail."""
        study = self._store.study(study_id)
        return [] if study is None else history.log_tail(study, lines)

    def wait(self, study_id: str) -> Study:
        """Block until the study is no longer running or queued here; returns it."""
        self._queues.wait(study_id)
        return self._study(study_id)

    def close(self) -> None:
        """Kill the running trials and end the threads; the studies stay resumable."""
        self._queues.close()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(timeout=20)

    def _refuse_to_write(self) -> None:
        if self._store.read_only:
            raise StoreError(self._store.read_only)

    def _act(self, study_id: str, who: str) -> None:
        """From here on what happens to the study is done for `who`."""
        with self._lock:
            self._actors[study_id] = who

    def _who(self, study_id: str) -> str:
        with self._lock:
            return self._actors.get(study_id, "")

    def _ask(self, study_id: str, state: str, who: str) -> None:
        self._study(study_id)
        self._refuse_to_write()
        self._act(study_id, who)
        with self._lock:
            self._stop[study_id] = state
        if self._queues.remove(study_id) or study_id not in self.active():
            self._give_up(study_id, state)

    def _give_up(self, study_id: str, state: str) -> None:
        """End a study that is not running: its open trials when cancelled, then the study's own
        state.
        """
        events = []
        state = _lasting(state)
        if state == "cancelled":
            kept.clear(self._folder / study_id)
            for trial in self._study(study_id).trials:
                if trial.state not in ENDED:
                    events.append(ended(trial, trial.attempt, "cancelled", "cancelled by the user"))
        events.append(StudyStateChanged(state, "by the user").event(study_id))
        self._keep(study_id, events)
        with self._lock:
            self._stop.pop(study_id, None)

    def _enqueue(self, study: Study) -> None:
        device = self._queues.add(study.id, devices(study.case.target))
        with self._lock:
            if device not in self._threads and not self._queues.closed:
                # It starts the children, and the kernel ends a child with the thread that did.
                self._threads[device] = threading.Thread(
                    target=self._work, args=(device,), name=f"trimtab-{device}", daemon=True
                )
                self._threads[device].start()

    def _study(self, study_id: str) -> Study:
        study = self._store.study(study_id)
        if study is None:
            raise BadInput(
                f"there is no study {study_id!r} in this store; `trimtab studies` lists them"
            )
        return study

    def _keep(self, study_id: str, events: list[Event]) -> None:
        """First the disk, then the store; what is said without an author is said for whoever asked
        last.
        """
        if not events:
            return
        who = self._who(study_id)
        events = [event if event.who else replace(event, who=who) for event in events]
        place = self._folder / study_id
        with Journal(place / (HERE if (place / HERE).exists() else STUDY)) as journal:
            journal.extend(events)
        self._ingest(events)

    def _ingest(self, events: list[Event]) -> None:
        self._store.ingest(events)
        self._listeners.tell(events)

    def _work(self, device: str) -> None:
        while (study_id := self._queues.take(device)) is not None:
            try:
                self._run_study(study_id, device)
            except (TrimtabError, OSError) as error:
                self._fail(study_id, str(error))
            except Exception as error:
                # The studies behind this one must not wait for ever.
                logger.exception("the supervisor met what it does not know")
                self._fail(study_id, f"unexpected {type(error).__name__}; the log says more")
            finally:
                self._schedules.pop(study_id, None)
                self._queues.done(device)

    def _fail(self, study_id: str, reason: str) -> None:
        """Say in the study why it stopped; when even that cannot be kept, the journal and the
        next start tell.
        """
        try:
            self._keep(study_id, [StudyStateChanged("paused", reason).event(study_id)])
        except (TrimtabError, OSError) as error:
            why = f"{reason}; {error}"
            self._listeners.tell([StudyStateChanged("paused", why).event(study_id)])

    def _run_study(self, study_id: str, device: str) -> None:
        study = self._study(study_id)
        self._keep(study_id, [StudyStateChanged("running").event(study_id)])
        schedule = self._schedules[study_id] = Schedule(study, open_trials(study))
        with self._listeners.joined(schedule.stages):
            goes_on = self._run_trials(study, schedule, device)
        if not goes_on:
            return
        wanted = self._wanted(study_id)
        if wanted:
            self._give_up(study_id, wanted)
        elif not self._queues.closed:
            out = [ended(t, t.attempt, "cancelled", schedule.left_out) for t in schedule.left]
            kept.clear(self._folder / study_id)
            self._keep(study_id, [*out, StudyStateChanged("done").event(study_id)])
        self.ingest_journals(study_id)

    def _run_trials(self, study: Study, schedule: Schedule, device: str) -> bool:
        """Run the study's trials as they are scheduled; False when the study had to stop."""
        study_id = study.id
        while not self._wanted(study_id) and not self._queues.closed:
            turn = schedule.next()
            if turn is None:
                break
            trial = turn.trial
            full = disk_too_full(self._folder, self._limits(trial.plan, study.preset))
            if full is not None:
                self._fail(study_id, full.reason)
                return False
            self._runner.run(study, turn, device, schedule.left_out)
            self.ingest_journals(study_id)
            lost = without_baseline(self._study(study_id)) if trial.is_baseline else ""
            if lost:
                self._fail(study_id, lost)
                return False
        return True

    def _must_stop(self, study_id: str) -> str:
        """What the running trial of a study must end for now, or an empty string."""
        if self._queues.closed:
            return CLOSED
        wanted = {"cancelled": CANCELLED, _INTERRUPTED: CLOSED}.get(self._wanted(study_id), "")
        return wanted or (LATE if self._schedules[study_id].is_late() else "")

    def _wanted(self, study_id: str) -> str:
        """What the user asked this study to become, or an empty string; a marker file asks from
        another process.
        """
        marker = self._folder / study_id / CANCEL
        if marker.exists():
            self._act(study_id, named(marker.read_text(encoding="utf-8", errors="replace")))
            marker.unlink(missing_ok=True)
            with self._lock:
                self._stop[study_id] = "cancelled"
        with self._lock:
            return self._stop.get(study_id, "")


def _lasting(wanted: str) -> str:
    """The state of a study that was asked to stop in this way."""
    return "paused" if wanted == _INTERRUPTED else wanted
