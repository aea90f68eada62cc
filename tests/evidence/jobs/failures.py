"""Every way in which a trial's process can fail, through the real supervisor with real processes.

    python -m tests.evidence failures [KIND ...]

Each kind is one study of two trials: the first fails in that way, the second must be done
afterwards. It counts when the first ends as a failed trial with a sentence, nothing forged is
stored and no process is left.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from app.jobs.supervisor import Supervisor
from app.planning import plan_study
from core.measure.child.limits import TrialLimits
from core.measure.child.processes import TRIAL, find, marks, table
from core.measure.child.spawn import ChildStart, Spawned, Started
from core.plan import Plan
from core.priorities import Priorities
from core.study import Study
from store import open_store
from store.interface import Store
from tests.evidence.jobs import failing_worker

SCRIPT = Path(failing_worker.__file__)
MIB = 1 << 20
SMALL = TrialLimits(
    wall_s=60.0,
    cpu_s=60,
    memory_bytes=300 * MIB,
    reserve_bytes=100 * MIB,
    address_bytes=4096 * MIB,
    file_bytes=64 * MIB,
    processes=24,
    threads=120,
    disk_bytes=MIB,
    line_bytes=4 * MIB,
    output_bytes=16 * MIB,
    beat_s=0.2,
    notice_s=1.0,
    silence_s=5.0,
    starting_s=30.0,
    idle_s=30.0,
    attempts=2,
)
OWN = {
    "spin": {"wall_s": 4.0},
    "ignore-sigterm": {"wall_s": 4.0},
    "processor-limit": {"cpu_s": 3},
    "hang": {"idle_s": 4.0},
    "disk-full": {"file_bytes": 40_000},
    "thread-storm": {"address_bytes": None},
}
# What the reason must name; the others only need a reason.
NAMED = {
    "segfault": "SIGSEGV",
    "abort": "SIGABRT",
    "illegal-instruction": "SIGILL",
    "bus-error": "SIGBUS",
    "kill-itself": "SIGKILL",
    "terminate-itself": "SIGTERM",
    "memory-growth": "out of memory",
    "memory-growth-in-a-child": "out of memory",
    "python-out-of-memory": "out of memory",
    "spin": "longer than",
    "ignore-sigterm": "longer than",
    "processor-limit": "SIGXCPU",
    "hang": "no processor time",
    "hang-with-the-interpreter": "no sign of life",
    "stop-itself": "stopped by a signal",
    "disk-full": "cannot be written",
    "flood-of-events": "bytes of events",
    "fork-storm": "processes",
    "thread-storm": "threads",
    "daemon": "code 3",
    "exit-0": "code 0",
    "exit-3": "code 3",
    "journal-deleted": "journal",
    "journal-emptied": "journal",
    "exec-another-program": "closed its output",
    "exception": "a shape of 0 rows",
    "hostile-exception": "RuntimeError",
    "sys-exit": "status 3",
    "endless-recursion": "RecursionError",
    "garbage-on-stdout": "events alone",
    "binary-on-stdout": "events alone",
    "line-of-50-MB": "line of more than",
    "stdout-closed": "closed its output",
    "event-of-another-trial": "another trial",
    "event-of-another-study": "another trial",
    "event-of-another-attempt": "another attempt",
    "event-with-a-forged-id": "forged id",
    "event-of-the-supervisor": "not its to send",
    "event-forged-in-the-journal": "code 3",
    "damaged-measurement": "damaged event",
    "end-that-no-journal-holds": "journal",
    "import-error": "no_such_module",
    "unreadable-job": "not one line of JSON",
}


@dataclass(frozen=True)
class Result:
    """What one kind came to; `faults` is empty when it ended as it should."""

    kind: str
    reason: str
    faults: tuple[str, ...]
    orphans: int
    seconds: float


class Bench:
    """One supervisor for all kinds, so that each must leave it whole for the next."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.kind = store, folder, ""
        self.supervisor = Supervisor(store, folder, starter=self._start, limits=self._limits)

    def try_kind(self, kind: str) -> Result:
        self.kind = kind
        study, plans = plan_study(
            "pycode-small", "local", "autocomplete", Priorities(), ("weight-int8",)
        )
        began = time.monotonic()
        self.supervisor.submit(study, plans)
        stopped = self.supervisor.wait(study.id)
        # The trial that fails is the unchanged model: the study stops with that reason, and goes on
        # when it is resumed.
        self.supervisor.resume(study.id)
        ended = self.supervisor.wait(study.id)
        faults = self._faults(ended)
        if stopped.state != "paused" or ended.trials[0].reason.rstrip(".") not in stopped.reason:
            faults.append(f"the study was {stopped.state} after its baseline: {stopped.reason}")
        orphans = self._orphans(ended)
        reason = ended.trials[0].reason
        return Result(kind, reason, tuple(faults), orphans, time.monotonic() - began)

    def _start(self, start: ChildStart) -> Started:
        if self.kind == "unreadable-job" and b'"techniques":[]' in start.job.replace(b"\\", b""):
            start = replace(start, job=b"{not a job\n")
        return Spawned(start, (sys.executable, str(SCRIPT), self.kind))

    def _limits(self, plan: Plan, preset: str) -> TrialLimits:
        return replace(SMALL, **({} if plan.techniques else OWN.get(self.kind, {})))

    def _faults(self, study: Study) -> list[str]:
        bad, good = study.trials
        found = []
        if bad.state != "failed":
            found.append(f"the trial is {bad.state}")
        if NAMED[self.kind] not in bad.reason:
            found.append(f"the reason does not say {NAMED[self.kind]!r}")
        if len(bad.reason) > 1500 or not bad.reason.isprintable():
            found.append("the reason is no sentence")
        # A worker that cannot even be imported cannot run the next trial either.
        wanted = "failed" if self.kind == "import-error" else "done"
        if good.state != wanted:
            found.append(f"the trial after it is {good.state}: {good.reason}")
        if study.state != "done":
            found.append(f"the study is {study.state}: {study.reason}")
        if any(one.method == "forged" for trial in study.trials for one in trial.measurements):
            found.append("a forged measurement was stored")
        if any(one.id == "s-00000000000000" for one in self.store.studies()):
            found.append("a forged study was stored")
        if self.store.trial("t-00000000000000") is not None:
            found.append("a forged trial was stored")
        rebuilt = open_store("memory:")
        other = Supervisor(rebuilt, self.folder)
        other.ingest_journals(study.id)
        if rebuilt.study(study.id) != study:
            found.append("the journals tell another story than the store")
        return found

    def _orphans(self, study: Study) -> int:
        """Processes that still live: those that carry the mark, and those that the worker wrote
        down when it started them.
        """
        trials = {trial.id for trial in study.trials}
        left = {pid for pid in table() if marks(pid).get(TRIAL) in trials}
        written = self.folder / study.id / "started"
        for line in written.read_text().split() if written.exists() else ():
            process = find(int(line))
            if process is not None and process.state != "Z" and _ours(int(line)):
                left.add(int(line))
        return len(left)


def _ours(pid: int) -> bool:
    try:
        return b"time.sleep" in Path(f"/proc/{pid}/cmdline").read_bytes() or (
            SCRIPT.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    except OSError:
        return False


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="every kind when none is named")


def main(options: argparse.Namespace) -> int:
    """Try each kind; 0 when all of them ended as they should."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    chosen = options.kinds or list(failing_worker.KINDS)
    store = open_store("memory:")
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        bench = Bench(store, Path(folder))
        results = []
        for kind in chosen:
            one = bench.try_kind(kind)
            results.append(one)
            print(f"{kind:28} {one.seconds:5.1f} s  {one.reason}")
            for fault in one.faults:
                print(f"{'':28} WRONG: {fault}")
            if one.orphans:
                print(f"{'':28} WRONG: {one.orphans} processes left")
            sys.stdout.flush()
        bench.supervisor.close()
    good = sum(not one.faults and not one.orphans for one in results)
    orphans = sum(one.orphans for one in results)
    print(
        f"{good} of {len(results)} failure kinds ended with a reason,"
        f" {orphans} orphans, supervisor up"
    )
    return 0 if good == len(results) else 1
