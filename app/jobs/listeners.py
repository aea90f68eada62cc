"""Who hears of the events that are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from core.journal.events import Event

Listener = Callable[[Event], None]


class Listeners:
    """May be used from several threads; a listener is called in the thread that keeps an event."""

    def __init__(self, first: Listener | None = None) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Listener, ...] = () if first is None else (first,)

    @contextmanager
    def joined(self, listener: Listener) -> Iterator[None]:
        """Inside, `listener` hears too."""
        with self._lock:
            self._all = (*self._all, listener)
        try:
            yield
        finally:
            with self._lock:
                self._all = tuple(heard for heard in self._all if heard is not listener)

    def tell(self, events: Iterable[Event]) -> None:
        """Call every listener with every event."""
        heard = self._all
        for event in events:
            for listener in heard:
                listener(event)
