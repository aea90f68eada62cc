"""One child process of the supervisor: start it, read its events, kill it with its whole group,
name its death.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import core
from core import codec
from core.errors import BadInput
from core.events import Event, from_line
from core.journal import read
from core.measure.environment import available_bytes
from core.study import Study, Trial

ROOT = Path(core.__file__).parent.parent
# Address space that libraries map beyond what they use; an RLIMIT_AS below it would refuse to
# import torch.
HEADROOM = 6 << 30


class Child:
    """A trial's process. `ended` becomes true when it said how the trial ended."""

    def __init__(self, folder: Path, study: Study, trial: Trial, attempt: int) -> None:
        self.ended = False
        self._seen: set[str] = set()
        self._journal = folder / f"{trial.id}-{attempt}.jsonl"
        self._log = folder / f"{trial.id}-{attempt}.log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        job = {
            "study": study.id,
            "trial": trial.id,
            "attempt": attempt,
            "plan": codec.dumps(trial.plan),
            "preset": study.preset,
            "journal": str(self._journal),
            "memory_bytes": None
            if trial.plan.case.target.kind == "cuda"
            else available_bytes() + HEADROOM,
        }
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.measure.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write((json.dumps(job) + "\n").encode())
            self._process.stdin.close()
        threading.Thread(target=self._read, name=f"trimtab-read-{trial.id}", daemon=True).start()

    def batches(self) -> Iterator[list[Event]]:
        """Events as they arrive, at least one (perhaps empty) batch every 0.2 s, until the child
        closes its output.
        """
        while True:
            batch: list[Event] = []
            try:
                line = self._lines.get(timeout=0.2)
                while True:
                    if line is None:
                        yield batch
                        return
                    self._take(line, batch)
                    line = self._lines.get_nowait()
            except queue.Empty:
                yield batch

    def unread(self) -> list[Event]:
        """Events of the child's journal that the pipe lost."""
        events = [one for one in read(self._journal)[0] if one.id not in self._seen]
        self.ended = self.ended or any(one.kind == "trial-ended" for one in events)
        return events

    def kill(self) -> None:
        """End the child and everything it started; wait until it is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.ended:
                self._process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def death(self) -> str:
        """A sentence for a child that ended without saying how."""
        code = self._process.returncode
        if code >= 0:
            return (
                f"the trial's process ended with code {code} before it finished;"
                f" its log is {self._log.name}"
            )
        name = signal.Signals(-code).name
        hints = {
            "SIGKILL": "killed from outside, perhaps because memory ran out",
            "SIGSEGV": "a kernel touched memory that is not its own",
            "SIGABRT": "a library gave up",
            "SIGILL": "a kernel used an instruction that this processor lacks",
            "SIGXCPU": "its processor time limit was reached",
        }
        return f"the trial's process died by {name}: {hints.get(name, 'no event says why')}"

    def _take(self, line: str, batch: list[Event]) -> None:
        with contextlib.suppress(BadInput):
            one = from_line(line)
            self.ended = self.ended or one.kind == "trial-ended"
            self._seen.add(one.id)
            batch.append(one)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put(None)
