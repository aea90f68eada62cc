"""One process of a trial: start it, understand what it says, name its death.

How long it may live is judged by watchdog.py, which of its words are believed by belief.py.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.catalogue.planned import planned_files
from core.errors import BadInput
from core.journal import codec
from core.journal.events import Event, TrialEnded
from core.journal.journal import read
from core.journal.lines import from_line
from core.measure.child.belief import Unfit, refusal
from core.measure.child.deaths import said_of, signal_name
from core.measure.child.limits import TrialLimits, impose
from core.measure.child.output import TOO_LONG, TOO_MUCH, Output
from core.measure.child.processes import (
    OWNER,
    TRIAL,
    Process,
    ProcessTree,
    kernel_kills,
    owner_mark,
)
from core.measure.child.spawn import ChildStart, Spawned, Starter
from core.measure.pace.prefixes import PREFIXES
from core.measure.pace.schedule import Turn
from core.study import Study, Trial

TICK_S = 0.2
# Exit statuses with which a worker says in its log, in a sentence, why it cannot speak in events.
IN_WORDS = (2, 74)


class Child:
    """A trial's process. `end` is what it said of its end; `wrong` what was wrong with its output,
    after which nothing more of it is believed. `turn` says which prefixes of its plan it keeps for
    later trials, and how many rounds it times; `unfit` what cannot be kept of its words.
    """

    def __init__(
        self,
        folder: Path,
        study: Study,
        trial: Trial,
        attempt: int,
        limits: TrialLimits,
        starter: Starter = Spawned,
        environment: Mapping[str, str] | None = None,
        who: str = "",
        turn: Turn | None = None,
        unfit: Unfit = lambda event: None,
    ) -> None:
        self.end: Event | None = None
        self.wrong = ""
        self._turn = turn or Turn(trial)
        self._kept = folder / PREFIXES
        self.journal = folder / f"{trial.id}-{attempt}.jsonl"
        self._log = folder / f"{trial.id}-{attempt}.log"
        self._about = (study.id, trial.id, attempt, who)
        self._unfit = unfit
        self._limits = limits
        self._seen: dict[str, Event] = {}
        self._kills = kernel_kills()
        output, output_end = os.pipe()
        self._beats, beats_end = os.pipe()
        os.set_blocking(self._beats, False)
        marks = {TRIAL: trial.id, OWNER: owner_mark(), **(environment or {})}
        job = self._job(study, trial, attempt, beats_end, who)
        try:
            with self._log.open("wb") as log:
                self._process = starter(
                    ChildStart(folder, marks, job, output_end, beats_end, log.fileno())
                )
        except BaseException:
            os.close(output)
            os.close(self._beats)
            raise
        finally:
            os.close(output_end)
            os.close(beats_end)
        impose(self._process.pid, limits)
        self.family = ProcessTree(self._process.pid, trial.id)
        self._output = Output(output, limits.line_bytes, limits.output_bytes)

    def batches(self) -> Iterator[list[Event]]:
        """Believed events as they arrive, at least one (perhaps empty) batch every 0.2 s, until the
        process has ended or closed its output, or `wrong` is set. Its end is kept in `end`.
        """
        while True:
            lines, last = self._output.take(TICK_S)
            # Who still holds the pipe of a process that has ended is not the trial.
            dead = not lines and self._process.wait(0) is not None
            yield self._believed(lines)
            if last or dead or self.wrong:
                return

    def beats(self) -> int:
        """How many signs of life came since the last call."""
        with contextlib.suppress(OSError):
            return len(os.read(self._beats, 65536))
        return 0

    def hangs_on(self) -> bool:
        """Whether it goes on without output and without having said its end, judged after a
        moment.
        """
        return self.end is None and not self.wrong and self._process.wait(2.0) is None

    def kill(self) -> list[Process]:
        """End the process and its whole family; one that has said its end may leave by itself.
        Returns what could not be ended.
        """
        if self.end is not None and not self.wrong:
            self._process.wait(5.0)
        left = self.family.kill()
        self._process.wait(5.0)
        os.close(self._beats)
        return left

    def rest(self) -> list[Event]:
        """Believed events that were still in the pipe of a killed process, or only in its
        journal.
        """
        events = self._believed(self._output.drain(2.0))
        for event in self._journalled():
            if event.id not in self._seen and not self.wrong and not self._refusal(event):
                self._keep(event, events)
        return events

    def unwritten(self) -> list[Event]:
        """Events that it sent but that its journal does not hold."""
        written = {event.id for event in self._journalled()}
        sent = (event for event in self._seen.values() if event.is_journalled)
        return [event for event in sent if event.id not in written]

    def end_is_written(self) -> bool:
        """Whether everything that it sent, its end included, lies in its journal."""
        return self.end is not None and not self.unwritten()

    def death(self) -> tuple[str, bool]:
        """A sentence for a process that ended without saying how, and whether to try again."""
        code = self._process.wait(0)
        last_words = self._last_words()
        if code is None:
            return "its process ended and its exit status is lost", True
        if code in IN_WORDS and last_words:
            return last_words, False
        if code >= 0:
            how = f"its process ended with code {code} before it said how the trial ended"
            return (f"{how}: {last_words}" if last_words else how), True
        name = signal_name(-code)
        # What the kernel ended for a limit would meet it again.
        again = name not in ("SIGXCPU", "SIGXFSZ")
        kills = kernel_kills()
        if name == "SIGKILL" and kills is not None and kills > (self._kills or 0):
            why = "because the machine or its container had no memory left"
            return f"out of memory: the kernel killed its process (SIGKILL) {why}", False
        return f"its process died by {name}: {said_of(name)}", again

    def _journalled(self) -> list[Event]:
        """The events of its journal, unless that is larger than all it may say."""
        with contextlib.suppress(OSError):
            size = self.journal.stat().st_size
            if size > 2 * self._limits.output_bytes:
                self.wrong = self.wrong or f"its journal grew to {size:,} bytes"
                return []
        return read(self.journal)[0]

    def _job(self, study: Study, trial: Trial, attempt: int, beats: int, who: str) -> bytes:
        planned = planned_files(trial.plan.case.model, self.journal.parent)
        job: dict[str, Any] = {
            "study": study.id,
            "trial": trial.id,
            "attempt": attempt,
            "who": who,
            "plan": codec.dumps(trial.plan),
            "preset": study.preset,
            "files": None if planned is None else planned.to_json(),
            "journal": str(self.journal),
            "memory_bytes": self._limits.address_bytes,
            "beats": beats,
            "beat_s": self._limits.beat_s,
            "prefixes": {"folder": str(self._kept), "lengths": self._turn.prefixes},
            "rounds": self._turn.rounds,
        }
        return (json.dumps(job) + "\n").encode()

    def _believed(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if self.wrong:
                break
            if line == TOO_LONG:
                self.wrong = f"it wrote a line of more than {self._limits.line_bytes:,} bytes"
            elif line == TOO_MUCH:
                self.wrong = f"it wrote more than {self._limits.output_bytes:,} bytes of events"
            elif line.strip():
                self._understand(line, events)
        return events

    def _understand(self, line: bytes, events: list[Event]) -> None:
        try:
            event = from_line(line.decode("utf-8"))
        except (BadInput, UnicodeDecodeError):
            self.wrong = "its output, which belongs to events alone, held something else"
            return
        reason = self._refusal(event)
        if reason is not None:
            self.wrong = f"it sent {reason}"
        elif event.id not in self._seen:
            self._keep(event, events)

    def _refusal(self, event: Event) -> str | None:
        return refusal(event, *self._about) or self._unfit(event)

    def _keep(self, event: Event, events: list[Event]) -> None:
        self._seen[event.id] = event
        if event.is_a(TrialEnded):
            self.end = event
        else:
            events.append(event)

    def _last_words(self) -> str:
        """The last line of the log, as much as fits a sentence."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - 4096, 0))
            text = log.read().decode("utf-8", "replace")
            lines = ["".join(c if c.isprintable() else " " for c in x) for x in text.splitlines()]
            return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
        return ""
