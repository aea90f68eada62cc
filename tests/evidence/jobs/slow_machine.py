"""Does the quick study end within the 3 minutes that it promises on a machine three times slower?

    python -m tests.evidence slow-machine
    python -m tests.evidence slow-machine --speed 0.5 --workload autocomplete

Runs `trimtab run --preset quick` with a store of its own under a quota of processor time: a cgroup
where one can be written (v1 or v2), else the processes are stopped and continued in turns. Prints
the wall time, what was left out, the recommendation and its doubts; exit 1 when it took longer or
recommends nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PROMISED_S = 180.0
PERIOD_US = 100_000
CGROUP = Path("/sys/fs/cgroup")
NAME = f"trimtab-slow-{os.getpid()}"
# So that other programs do not make the machine slower still than the quota does.
SHARES = {"cpu.shares": "65536", "cpu.weight": "10000"}
# A cycle of stopping and continuing, in seconds.
CYCLE_S = 0.1


def arguments(parser: argparse.ArgumentParser) -> None:
    """What may be said on the command line."""
    parser.add_argument("--speed", type=float, default=0.33, help="share of this machine's speed")
    parser.add_argument("--model", default="pycode")
    parser.add_argument("--workload", default="chat")


def main(options: argparse.Namespace) -> int:
    """Run the study; 0 when it ended in time and recommends something."""
    with tempfile.TemporaryDirectory() as place:
        command = [
            sys.executable, "-m", "app.cli", "run", "--model", options.model, "--target", "local",
            "--workload", options.workload, "--preset", "quick", "--json",
            "--store", str(Path(place) / "store.duckdb"),
        ]  # fmt: skip
        began = time.monotonic()
        with slowed(options.speed) as (enter, how):
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            enter(process.pid)
            output, _ = process.communicate()
        took = time.monotonic() - began
    if process.returncode not in (0, 1):
        print(f"the study ended with the status {process.returncode}")
        return 1
    document = json.loads(output)
    chosen = report(document)
    reached = took <= PROMISED_S and chosen
    print(
        f"at {options.speed:g} of the speed ({how}) the quick study took {took:.0f} s of"
        f" {PROMISED_S:g}: {'reached' if reached else 'MISSED'}"
    )
    return 0 if reached else 1


def report(document: dict[str, Any]) -> bool:
    """Print what the study says; whether it recommends a trial that it measured."""
    titles = {}
    for trial in document["trials"]:
        named = " + ".join(one["name"] for one in trial["plan"]["techniques"]) or "baseline"
        titles[trial["id"]] = named
        print(f"{trial['state']:10} {named}  {trial['reason'] or ''}".rstrip())
    for warning in document["warnings"]:
        print(f"warning: {warning}")
    advice = document["recommendation"]
    print(f"recommended: {titles.get(advice['trial'], 'nothing')} (proven: {advice['proven']})")
    for sentence in advice["because"]:
        print(f"  {sentence}")
    return advice["trial"] is not None


@contextlib.contextmanager
def slowed(speed: float) -> Iterator[Any]:
    """Gives a function that slows a process and all that it starts, and words for how."""
    group = cgroup(speed)
    if group is not None:
        try:
            yield lambda pid: (group / "cgroup.procs").write_text(str(pid)), "a cgroup's quota"
        finally:
            empty(group)
        return
    done = threading.Event()
    threads: list[threading.Thread] = []

    def enter(pid: int) -> None:
        threads.append(threading.Thread(target=stutter, args=(pid, speed, done), daemon=True))
        threads[0].start()

    try:
        yield enter, "stopped and continued in turns"
    finally:
        done.set()
        for thread in threads:
            thread.join()


def cgroup(speed: float) -> Path | None:
    """A new cgroup with so much of all cores' time; None where none can be made."""
    quota = int(speed * len(os.sched_getaffinity(0)) * PERIOD_US)
    for parent, limits in (
        (CGROUP / "cpu", {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}),
        (CGROUP, {"cpu.max": f"{quota} {PERIOD_US}"}),
    ):
        group = parent / NAME
        try:
            group.mkdir()
            for name, value in limits.items():
                if not (group / name).exists():
                    raise OSError(f"no {name}")
                (group / name).write_text(value)
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        for name, value in SHARES.items():
            if (group / name).exists():
                (group / name).write_text(value)
        return group
    return None


def empty(group: Path) -> None:
    """Remove a cgroup once its last process has gone."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


def stutter(pid: int, speed: float, done: threading.Event) -> None:
    """Stop a process and its descendants for a share of every cycle."""
    while not done.is_set():
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(pid)
            family = [first, *first.children(recursive=True)]
            send(family, signal.SIGSTOP)
            time.sleep(CYCLE_S * (1 - speed))
            send(family, signal.SIGCONT)
        time.sleep(CYCLE_S * speed)


def send(family: list[psutil.Process], number: int) -> None:
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
