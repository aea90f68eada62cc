"""Which study waits for which device, and which one runs there: one queue a device, one study at a
time in each. Starts nothing itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence


class Queues:
    """Studies by device. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, list[str]] = {}
        self._running: dict[str, str] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def add(self, study_id: str, keys: Sequence[str]) -> str:
        """Queue a study for the one of `keys` where fewest wait; returns that. A study that waits
        or runs stays where it is.
        """
        with self._changed:
            place = self._place(study_id)
            if place:
                return place
            chosen = min(keys, key=self._load)
            self._waiting.setdefault(chosen, []).append(study_id)
            self._changed.notify_all()
            return chosen

    def take(self, key: str) -> str | None:
        """The next study for this device, which now runs; waits for one. None once closed."""
        with self._changed:
            while not self._waiting.get(key) and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            study_id = self._running[key] = self._waiting[key].pop(0)
            return study_id

    def done(self, key: str) -> None:
        """The device is free again."""
        with self._changed:
            self._running.pop(key, None)
            self._changed.notify_all()

    def remove(self, study_id: str) -> bool:
        """Let a study wait no longer; False when it runs already or is not here."""
        with self._changed:
            for waiting in self._waiting.values():
                if study_id in waiting:
                    waiting.remove(study_id)
                    self._changed.notify_all()
                    return True
            return False

    def running(self) -> tuple[str, ...]:
        """Ids of the studies that run now, one a device."""
        with self._changed:
            return tuple(self._running.values())

    def active(self) -> tuple[str, ...]:
        """Ids of all studies here, the running ones first."""
        with self._changed:
            waiting = (study_id for queue in self._waiting.values() for study_id in queue)
            return (*self._running.values(), *waiting)

    def ahead(self, study_id: str) -> int:
        """How many studies run or wait before this one on its device; 0 when it runs or is not
        here.
        """
        with self._changed:
            key = self._place(study_id)
            if not key or self._running.get(key) == study_id:
                return 0
            return self._waiting[key].index(study_id) + (key in self._running)

    def wait(self, study_id: str) -> None:
        """Return when the study neither runs nor waits, or when closed."""
        with self._changed:
            # Waking up now and then lets the main thread see its signals.
            while self._place(study_id) and not self._closed:
                self._changed.wait(0.2)

    def close(self) -> None:
        """Nothing is taken any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _place(self, study_id: str) -> str:
        for key, running in self._running.items():
            if running == study_id:
                return key
        return next((key for key, queue in self._waiting.items() if study_id in queue), "")

    def _load(self, key: str) -> int:
        return len(self._waiting.get(key, ())) + (key in self._running)
