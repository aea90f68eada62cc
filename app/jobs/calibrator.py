"""Calibrates this machine in a child process for the Hardware page: one at a time, never in the
server, killed with its group when it takes too long or the server ends.

What is measured is core.machine.calibration's business; the child stores the result itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from typing import Any

from core.measure.child.spawn import ROOT, child_environment

COMMAND = (sys.executable, "-m", "core.machine.calibration")
# Measuring takes half a minute on an idle machine; a busy or a slow one may need more.
LIMIT_S = 180.0


@dataclass(frozen=True)
class CalibrationProgress:
    """How far a calibration is: `running` until the child has ended, then `error` or nothing.

    `finished` counts the calibrations of this process that were stored, so that a page can tell a
    new one.
    """

    running: bool = False
    stage: str = ""
    share: float = 0.0
    error: str = ""
    finished: int = 0


class Calibrator:
    """Owns at most one child. Safe to call from several threads."""

    def __init__(self, command: tuple[str, ...] = COMMAND, limit_s: float = LIMIT_S) -> None:
        self._command = command
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._progress = CalibrationProgress()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._why = ""

    def progress(self) -> CalibrationProgress:
        """Where it stands now."""
        with self._lock:
            return self._progress

    def start(self) -> bool:
        """Begin, unless a calibration runs already; returns whether a new one began."""
        with self._lock:
            if self._progress.running:
                return False
            self._progress = replace(
                self._progress, running=True, stage="starting", share=0.0, error=""
            )
            # The child asks to die with the thread that starts it: this one lives as long as it.
            self._thread = threading.Thread(target=self._run, name="trimtab-calibrate", daemon=True)
            self._thread.start()
            return True

    def cancel(self, why: str = "cancelled") -> None:
        """End a running calibration; nothing is stored."""
        with self._lock:
            self._why = self._why or why
            process = self._process
        _kill(process)

    def wait(self, seconds: float) -> CalibrationProgress:
        """Wait until nothing runs, at most `seconds`."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return self.progress()

    def _run(self) -> None:
        error = ""
        timer = threading.Timer(
            self._limit_s, self.cancel, (f"it took longer than {self._limit_s:g} s",)
        )
        timer.daemon = True
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=ROOT,
                start_new_session=True,
                env=child_environment({}),
            )
        except OSError as problem:
            self._end(f"the calibration cannot start: {problem.strerror}")
            return
        with self._lock:
            self._process, self._why = process, ""
        timer.start()
        stored = False
        try:
            assert process.stdout is not None
            for line in process.stdout:
                report = _said(line)
                if "error" in report:
                    error = str(report["error"])
                stored = stored or "calibration" in report
                self._note(report)
        finally:
            timer.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            _kill(process)
            code = process.wait()
        with self._lock:
            why = self._why
        if not stored and not error:
            error = f"the calibration was ended: {why}" if why else _death(code)
        self._end("" if stored else error, stored)

    def _note(self, report: dict[str, Any]) -> None:
        stage, share = report.get("stage"), report.get("share")
        if isinstance(stage, str) and isinstance(share, float | int):
            with self._lock:
                bounded = min(1.0, max(0.0, float(share)))
                self._progress = replace(self._progress, stage=stage[:80], share=bounded)

    def _end(self, error: str, stored: bool = False) -> None:
        with self._lock:
            count = self._progress.finished + stored
            self._process = None
            self._progress = CalibrationProgress(error=error, finished=count)


_lock = threading.Lock()
_calibrator: Calibrator | None = None


def get_calibrator() -> Calibrator:
    """The process-wide calibrator; its child is killed when this process ends."""
    global _calibrator
    with _lock:
        if _calibrator is None:
            _calibrator = Calibrator()
            atexit.register(_calibrator.cancel, "the server ended")
        return _calibrator


def _said(line: str) -> dict[str, Any]:
    """One line of the child; what is not an object says nothing."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _kill(process: subprocess.Popen[str] | None) -> None:
    if process is None or process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _death(code: int) -> str:
    if code < 0:
        return f"the calibration's process died by {signal.Signals(-code).name}"
    return f"the calibration's process ended with code {code} and stored nothing"
