"""R1: kill -9 at random points of running studies, of the supervisor, of the measuring process, or
of both; then open again. No acknowledged measurement may be lost or doubled, the store opens
without a complaint, and the study goes on to its end.

    python -m tests.evidence kills [--count 200] [--seed 1]

The supervisor, the store and the worker's way of writing are the real ones; only the trial itself
is replaced by one that measures nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.evidence import ROOT

WORKER = Path(__file__).with_name("quick_worker.py")
TECHNIQUES = ("weight-int8", "weight-int4", "prune-mlp")
PATIENCE_S = 120.0
# What is killed: the supervisor (also while it opens the store), the measuring process, or both.
KINDS = ("supervisor", "opening supervisor", "measuring process", "both")


@dataclass
class Tally:
    """What was seen over all studies."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    studies: int = 0
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """The figure."""
        if self.faults:
            return f"R1 is missed: {len(self.faults)} faults, the first: {self.faults[0]}"
        kinds = ", ".join(f"{kind} {number}" for kind, number in self.kills.items())
        return (
            f"R1: {sum(self.kills.values())} kills at random points ({kinds}) of {self.studies} "
            f"running studies: of {self.acknowledged:,} acknowledged measurements 0 were lost and 0"
            " doubled, every store opened without a complaint, every study was resumed to its end"
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", nargs=2, metavar=("FILE", "STUDY"), help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Kill `--count` times; 1 when anything was lost."""
    if options.serve:
        return serve(Path(options.serve[0]), options.serve[1])
    with tempfile.TemporaryDirectory(prefix="trimtab-kills-") as folder:
        tally = kill_often(Path(folder), options.count, options.seed)
    print(tally.sentence())
    return 1 if tally.faults else 0


def kill_often(folder: Path, count: int, seed: int) -> Tally:
    """Run studies until `count` kills have been made and the last study is done."""
    from store import open_store

    chance, tally = random.Random(seed), Tally()
    empty = folder / "empty.duckdb"
    open_store(str(empty)).close()
    while sum(tally.kills.values()) < count and len(tally.faults) < 10:
        place = folder / f"study-{tally.studies}"
        place.mkdir()
        file = Path(shutil.copy(empty, place / "store.duckdb"))
        one_study(file, count, chance, tally)
        tally.studies += 1
        print(f"{sum(tally.kills.values())} kills, {tally.studies} studies", file=sys.stderr)
        shutil.rmtree(place)
    return tally


def one_study(file: Path, count: int, chance: random.Random, tally: Tally) -> None:
    """Start a study, kill it some times, let it end, and look at what is there."""
    kills = min(count - sum(tally.kills.values()), chance.randint(4, 10))
    study_id = ""
    for turn in range(kills + 1):
        server = start(file, study_id)
        kind = "" if turn == kills else chance.choice(KINDS if study_id else KINDS[:1])
        if kind == "opening supervisor":
            time.sleep(chance.uniform(0.0, 1.2))
        else:
            said = server.stdout.readline().strip() if server.stdout else ""
            if not said.startswith("ready "):
                tally.faults.append(f"the store of {file.parent.name} did not open: {said}")
                end(server.pid)
                break
            study_id = said.split()[1]
            time.sleep(chance.uniform(0.0, 1.5) if kind else 0.0)
        if kind in ("measuring process", "both"):
            kill_worker(file)
            time.sleep(chance.uniform(0.0, 0.3) if kind == "measuring process" else 0.0)
        if kind:
            tally.kills[kind] += 1
            end(server.pid)
            server.wait()
        elif server.wait(PATIENCE_S) != 0:
            tally.faults.append(f"study {study_id} did not end")
        if server.stdout:
            tally.faults += [line.strip() for line in server.stdout if line.startswith("fault")]
            server.stdout.close()
    if study_id:
        judge(file, study_id, tally)


def start(file: Path, study_id: str) -> subprocess.Popen[str]:
    """A supervisor in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.evidence", "kills", "--serve", str(file), study_id],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ACKNOWLEDGED": str(acknowledged_in(file))},
    )


def serve(file: Path, study_id: str) -> int:
    """Open the store as every command does, start or resume the study, and wait for its end."""
    from app.jobs.accept import believed
    from app.jobs.supervisor import Supervisor
    from app.planning import plan_study
    from app.services import studies_folder
    from core.measure.child.spawn import Spawned
    from core.priorities import Priorities
    from store.health.recovery import close_sealed, open_checked

    folder = studies_folder(str(file))
    store, notices = open_checked(str(file), folder, believed)
    starter = partial(Spawned, command=(sys.executable, str(WORKER)))
    jobs = Supervisor(store, folder, starter=starter)
    for notice in notices:
        print(f"fault: {notice}", flush=True)
    said = acknowledged(file)
    for lost in said - store.known(said):
        print(f"fault: {lost} was acknowledged and is lost", flush=True)
    if study_id and store.study(study_id) is not None:
        jobs.recover()
        if store.study(study_id).state != "done":
            jobs.resume(study_id)
    else:
        study, plans = plan_study("pycode-small", "local", "chat", Priorities(), TECHNIQUES)
        study_id = jobs.submit(study, plans)
    print(f"ready {study_id}", flush=True)
    ended = jobs.wait(study_id)
    jobs.close()
    close_sealed(store, str(file), folder)
    return 0 if ended.state == "done" else 3


def judge(file: Path, study_id: str, tally: Tally) -> None:
    """Everything that was acknowledged is there once, and the study is whole."""
    import duckdb

    from core.study import ENDED
    from store import open_store

    said = acknowledged(file)
    tally.acknowledged += len(said)
    store = open_store(str(file))
    study = store.study(study_id)
    tally.faults += [f"{one} was acknowledged and is lost" for one in said - store.known(said)]
    store.close()
    if study is None or study.state != "done":
        tally.faults.append(f"study {study_id} did not go on to its end")
        return
    for trial in study.trials:
        shown = [(one.metric, one.condition) for one in trial.measurements]
        if trial.state not in ENDED or len(shown) != len(set(shown)):
            tally.faults.append(f"trial {trial.id} has no end or shows a measurement twice")
        if trial.state == "done" and len(shown) != 24:
            tally.faults.append(f"trial {trial.id} is done with {len(shown)} of 24 measurements")
    with duckdb.connect(str(file), read_only=True) as connection:
        query = "select count(*) - count(distinct (event_id, position)) from measurements"
        doubled = connection.execute(query).fetchall()[0][0]
    tally.faults += ["a measurement is stored twice"] * doubled


def acknowledged_in(file: Path) -> Path:
    return file.with_name("acknowledged")


def acknowledged(file: Path) -> set[str]:
    """What the workers said was on the disk; a last line without an end was never said."""
    path = acknowledged_in(file)
    return set(path.read_text().split("\n")[:-1]) if path.exists() else set()


def kill_worker(file: Path) -> None:
    """Kill the measuring process of this very store, if one runs."""
    mark = f"ACKNOWLEDGED={acknowledged_in(file)}".encode()
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if WORKER.name.encode() in (place / "cmdline").read_bytes() and mark in (
                place / "environ"
            ).read_bytes().split(b"\0"):
                end(int(place.name))


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
