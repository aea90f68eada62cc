"""Joules of rounds and of their phases (prefill, decode), idle power taken off.

Owns: which reader a device gets, the marks between phases, and turning joules into measurements. It
serves no requests: whoever serves sets the marks.

    meter = find_meter(device, target, preset.seconds)      `meter.why` says what is missing
    meter.measure_idle()                                    once, while nothing runs
    book = meter.book(new_tokens, prompt_tokens, requests)  of one round; one book for each plan
    with book.round():
        book.mark(PREFILL); ...; book.mark(DECODE); ...     as the server goes from one to the other
    measurements = energy(book, theirs_or_None, how, text)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from core.measure.energy import battery, nvml, powercap, stated
from core.measure.energy.reader import UPDATES, Lap, Reader, Unreadable
from core.target import Target


@dataclass
class RoundEnergy:
    """Joules and seconds of one round by phase, and how many spans each phase had; idle power is
    still in the joules. `beside` are those of components that overlap with the counted ones.
    """

    joules: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    spans: dict[str, int] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, lap: Lap) -> None:
        """The lap belongs to `phase`."""
        self.joules[phase] = self.joules.get(phase, 0.0) + lap.total
        self.seconds[phase] = self.seconds.get(phase, 0.0) + lap.seconds
        self.spans[phase] = self.spans.get(phase, 0) + 1
        for name, value in lap.beside:
            self.beside[name] = self.beside.get(name, 0.0) + value


class Meter:
    """The readers of one device, one after another at every mark.

    `why` is empty when something can be read, else the sentence to show; an Unreadable counter ends
    the reading for good and becomes `why`: energy of a part of the rounds would be a wrong number.
    """

    def __init__(
        self,
        readers: tuple[Reader, ...],
        why: str = "",
        idle_updates: float = UPDATES,
        updates: float = UPDATES,
    ) -> None:
        self.readers = readers
        self._idle_updates = idle_updates
        # A sample is at least as long as so many updates (core.measure.energy.reader).
        self.updates = updates
        self.why = why if not readers else ""
        self.idle_watts = 0.0
        self.idle_seconds = 0.0

    @property
    def resolution_s(self) -> float:
        """That of the slowest reader."""
        return max((reader.resolution_s for reader in self.readers), default=0.0)

    @property
    def origin(self) -> str:
        """`measured` when every reader counts."""
        counted = all(reader.origin == "measured" for reader in self.readers)
        return "measured" if counted else "estimated"

    @property
    def spread(self) -> tuple[float, float]:
        """The widest of the readers'."""
        low = min((reader.spread[0] for reader in self.readers), default=1.0)
        return low, max((reader.spread[1] for reader in self.readers), default=1.0)

    def start(self) -> None:
        """A span begins."""
        if self.why:
            return
        try:
            for reader in self.readers:
                reader.start()
        except Unreadable as error:
            self.why = str(error)

    def lap(self) -> Lap | None:
        """The span since the last mark, over all readers; None when nothing can be read."""
        if self.why:
            return None
        try:
            laps = [reader.lap() for reader in self.readers]
        except Unreadable as error:
            self.why = str(error)
            return None
        return Lap(
            max(lap.seconds for lap in laps),
            tuple(part for lap in laps for part in lap.joules),
            tuple(part for lap in laps for part in lap.beside),
        )

    def measure_idle(self, seconds: float = 1.0) -> None:
        """Watts while this process does nothing, over so many updates at least; nothing to do for
        readers that do not count idle power.
        """
        if self.why or not any(reader.draws_idle for reader in self.readers):
            return
        self.start()
        time.sleep(max(seconds, self._idle_updates * self.resolution_s))
        lap = self.lap()
        if lap is not None:
            self.idle_watts, self.idle_seconds = lap.total / lap.seconds, lap.seconds

    def book(self, new_tokens: int, prompt_tokens: int = 0, requests: int = 0) -> Book:
        """An empty book of rounds with so many new tokens (or images), prompt tokens and requests
        in all.
        """
        return Book(self, new_tokens, prompt_tokens, requests)


class Book:
    """The rounds of one plan."""

    def __init__(
        self, meter: Meter, new_tokens: int, prompt_tokens: int = 0, requests: int = 0
    ) -> None:
        self.meter = meter
        self.new_tokens = new_tokens
        self.prompt_tokens = prompt_tokens
        # The first new token of a request comes out of its prefill.
        self.decoded_tokens = new_tokens - requests
        self.rounds: list[RoundEnergy] = []
        self._open: RoundEnergy | None = None
        self._phase = ""

    @contextmanager
    def round(self) -> Iterator[None]:
        """One round: its joules are kept when it ends without an error."""
        self.meter.start()
        self._open, self._phase = RoundEnergy(), ""
        yield
        self.mark("")
        if not self.meter.why:
            self.rounds.append(self._open)
        self._open = None

    def mark(self, phase: str) -> None:
        """What was drawn up to now belongs to the phase before; from now on to `phase`."""
        if self._open is None:
            return
        lap = self.meter.lap()
        if lap is not None:
            self._open.add(self._phase, lap)
        self._phase = phase


def find_meter(device: str, target: Target | None = None, seconds: float = 0.0) -> Meter:
    """The best that this machine offers for `device`: counters, else the battery when the rounds
    take `seconds` enough, else an estimate from stated watts, else none and every reason.

    A GPU's energy is its own and, where RAPL can be read, that of the processor that feeds it.
    """
    rapl, no_rapl = powercap.find()
    if device == "cuda":
        gpu, why = nvml.find()
        if gpu is None:
            return Meter((), why)
        if isinstance(gpu, nvml.CountedReader):
            try:
                gpu.watch()
            except Unreadable as error:
                return Meter((), str(error))
        readers = (gpu,) if rapl is None else (gpu, rapl)
        return Meter(readers, "", nvml.IDLE_UPDATES, nvml.SAMPLE_UPDATES)
    if rapl is not None:
        return Meter((rapl,))
    cells, no_battery = battery.find(seconds=seconds)
    if cells is not None:
        return Meter((cells,))
    guess, no_guess = stated.find(target)
    if guess is not None:
        return Meter((guess,))
    reasons = [no_rapl, no_guess] if no_battery == "no battery" else [no_rapl, no_battery, no_guess]
    return Meter((), "; ".join(reasons))
