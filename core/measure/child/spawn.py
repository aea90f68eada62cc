"""Starting a trial's process: what a starter is given and what it hands back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import core

ROOT = Path(core.__file__).parent.parent
WORKER = (sys.executable, "-m", "core.measure.worker")


@dataclass(frozen=True)
class ChildStart:
    """`job` is one line for standard input; `output`, `beats` and `log` are file descriptors that
    the process writes; `marks` join its environment.
    """

    folder: Path
    marks: Mapping[str, str]
    job: bytes
    output: int
    beats: int
    log: int


class Started(Protocol):
    """A running process."""

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""

    def wait(self, seconds: float) -> int | None:
        """The exit status once it has ended, negative for a signal; None while it runs after
        `seconds`.
        """


Starter = Callable[[ChildStart], Started]


class Spawned:
    """A new interpreter, a child of this process in a session of its own."""

    def __init__(self, start: ChildStart, command: tuple[str, ...] = WORKER) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=start.output,
            stderr=start.log,
            cwd=start.folder,
            start_new_session=True,
            pass_fds=(start.beats,),
            env=child_environment(start.marks),
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(start.job)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """See Started."""
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """See Started."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None


def child_environment(marks: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with this checkout first among the places to import from."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **marks, "PYTHONPATH": os.pathsep.join(paths)}
