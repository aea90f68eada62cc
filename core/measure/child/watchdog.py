"""Looks after one running trial: is it silent, stuck, too large, too many, too long? Says so in a
sentence; who ends it is attempt.py.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core import format as formats
from core.machine.environment import available_bytes
from core.measure.child.limits import TrialLimits
from core.measure.child.processes import Process, ProcessTree, shared_bytes

# How often the whole process table is read: it costs some milliseconds of one core.
SURVEY_S = 1.0
# Processor time that tells work from the beats alone, which take a tenth of a millisecond each.
BUSY_S = 0.05


@dataclass(frozen=True)
class Verdict:
    """Why a trial must end now; `retry` when another attempt may fare better."""

    reason: str
    retry: bool = False


@dataclass(frozen=True)
class Health:
    """How a running trial is: `sentence` says what is wrong and is empty when nothing is."""

    trial_id: str
    attempt: int
    silent_s: float
    memory_bytes: int
    sentence: str


class Watchdog:
    """One attempt's. Silence is counted in looks, not on the clock: while this process itself was
    stopped or starved, nobody listened.
    """

    def __init__(
        self,
        limits: TrialLimits,
        family: ProcessTree,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._family = family
        self._folder = folder
        self._clock = clock
        self._began = self._looked = clock()
        self._surveyed = 0.0
        self._silent = self._quiet = self._idle = 0.0
        self._ready = False
        self._cpu = 0.0
        self.memory = 0
        self.stopped = False

    def look(self, beats: int, events: int, ready: bool = False) -> Verdict | None:
        """Judge the time since the last look, in which `beats` and `events` came; `ready` once the
        trial has said what it runs on.
        """
        now = self._clock()
        passed = min(now - self._looked, 1.0)
        self._looked = now
        self._ready = self._ready or ready
        self._silent = 0.0 if beats or events else self._silent + passed
        self._quiet = 0.0 if events else self._quiet + passed
        self._idle = 0.0 if events else self._idle + passed
        verdict = self._too_long(now)
        if verdict is None and now - self._surveyed >= min(SURVEY_S, self._limits.silence_s / 8):
            self._surveyed = now
            verdict = self._survey()
        return verdict

    def health(self, trial_id: str, attempt: int) -> Health:
        """How the trial is, in words."""
        return Health(trial_id, attempt, self._silent, self.memory, self._sentence())

    def _sentence(self) -> str:
        limits = self._limits
        if self._silent >= limits.notice_s:
            what = "its process is stopped" if self.stopped else "it does not answer"
            return (
                f"stuck: {what}, no sign of life for {self._silent:.0f} s; it is ended after"
                f" {self._patience:g} s"
            )
        if self._idle >= limits.notice_s:
            return (
                f"stuck: it waits and has not used the processor for {self._idle:.0f} s; it is"
                f" ended after {limits.idle_s:g} s"
            )
        if self._quiet >= limits.silence_s:
            left = limits.wall_s - (self._looked - self._began)
            return (
                f"busy, but without progress for {self._quiet:.0f} s; it is ended in"
                f" {max(left, 0):.0f} s if it has not finished by then"
            )
        return ""

    @property
    def _patience(self) -> float:
        return self._limits.silence_s if self._ready else self._limits.starting_s

    def _too_long(self, now: float) -> Verdict | None:
        limits = self._limits
        if now - self._began > limits.wall_s:
            return Verdict(f"it ran longer than the {limits.wall_s:g} s that the preset allows")
        # A stopped process starts no import: waiting longer would not help it.
        patience = limits.silence_s if self.stopped else self._patience
        if self._silent > patience:
            if self.stopped:
                return Verdict(
                    f"its process was stopped by a signal and gave no sign of life for"
                    f" {patience:g} s",
                    retry=True,
                )
            return Verdict(
                f"it hung: its process gave no sign of life for {patience:g} s, as a call does"
                f" that never returns to the interpreter",
                retry=True,
            )
        # A slow disk leaves the processor idle too while libraries are imported.
        wait = limits.idle_s if self._ready else max(limits.idle_s, limits.starting_s)
        if self._idle > wait:
            return Verdict(
                f"it hung: its process used no processor time and reported nothing for {wait:g} s",
                retry=True,
            )
        return None

    def _survey(self) -> Verdict | None:
        members = self._family.members()
        cpu = sum(member.cpu_s for member in members)
        if abs(cpu - self._cpu) > BUSY_S:
            self._idle, self._cpu = 0.0, cpu
        first = next((member for member in members if member.pid == self._family.pid), None)
        self.stopped = first is not None and first.state in "Tt"
        return self._too_many(members) or self._too_large(members) or self._too_full()

    def _too_many(self, members: list[Process]) -> Verdict | None:
        threads = sum(member.threads for member in members)
        if len(members) > self._limits.processes:
            return Verdict(
                f"it started {len(members)} processes, more than the {self._limits.processes}"
                f" that a trial may have"
            )
        if threads > self._limits.threads:
            return Verdict(
                f"it started {threads} threads, more than the {self._limits.threads} that a trial"
                f" may have"
            )
        return None

    def _too_large(self, members: list[Process]) -> Verdict | None:
        limits = self._limits
        self.memory = sum(member.resident for member in members)
        if self.memory > limits.memory_bytes and len(members) > 1:
            # Forked processes share pages, which resident sizes count once for each.
            self.memory = shared_bytes(members)
        used = formats.number(self.memory, "B")
        if self.memory > limits.memory_bytes:
            most, kept = limits.memory_bytes, limits.reserve_bytes
            return Verdict(
                f"out of memory: it used {used}, more than the {formats.number(most, 'B')} that it"
                f" may: what was free when it began, less {formats.number(kept, 'B')} for the rest"
                " of this machine"
            )
        left = available_bytes()
        if left < limits.reserve_bytes // 4 and self.memory > left:
            return Verdict(
                f"out of memory: it used {used} and the machine had only"
                f" {formats.number(left, 'B')} left; other programs use the rest"
            )
        return None

    def _too_full(self) -> Verdict | None:
        return disk_too_full(self._folder, self._limits)


def disk_too_full(folder: Path, limits: TrialLimits) -> Verdict | None:
    """A verdict when the disk of `folder` has less free space than a trial must leave."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    if free >= limits.disk_bytes:
        return None
    return Verdict(
        f"the disk of {os.fspath(folder)} has {formats.number(free, 'B')} left, a trial needs"
        f" {formats.number(limits.disk_bytes, 'B')}: free some space, then resume"
    )
