"""Stores to test, and studies to put in: every store test gets the same thing from memory and from
a DuckDB file.
"""

from __future__ import annotations

import getpass
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import techniques
from core.condition import read as read_condition
from core.journal import events
from core.journal.events import Event
from core.measurement import Measurement, unavailable
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.priorities import Limit, Priorities
from core.study import KernelCalls, Study, Trial
from core.target import Target
from core.workload import Workload
from store import Store, open_store
from store.tables import metadata


class Make:
    """Studies and the events that tell their stories."""

    def case(self, model: str = "pycode", title: str = "This machine") -> Case:
        return Case(
            Model(model, "llama", "bundled", "r1", DecoderShape(64, 2, 4, 2, 16, 176, 512, 256)),
            Target("local", title, "cpu", "local", 2**33, 2e10, (("fp32", 1e11),), local=True),
            Workload("chat", "Chat", "text", 128, 64, ttft_limit_s=0.5),
        )

    def study(self, study_id: str = "s-1", **given: object) -> Study:
        case = given.pop("case", None) or self.case()
        limits = Priorities(limits=(Limit("kl_nats", "<=", 0.05),))
        return Study(
            study_id, case, limits, budget_s=300.0, created_at="2026-11-21T10:00:00.000", **given
        )

    def trial(self, study: Study, trial_id: str, *words: str) -> Trial:
        plan = Plan(study.case, tuple(techniques.parse(word) for word in words), seed=3)
        return Trial(trial_id, study.id, plan)

    def measurement(self, metric: str = "ttft_s", *samples: float, **given: object) -> Measurement:
        return Measurement(metric, samples or (0.1, 0.25, 1 / 3), "s", "measured", "timed", **given)

    def measurements(self) -> tuple[Measurement, ...]:
        """One of every origin and shape."""
        taken = {"environment": "env-1", "taken_at": "2026-11-21T10:00:01.234"}
        return (
            self.measurement(
                "ttft_s",
                9.0,
                8.0,
                condition=read_condition("prompt_tokens=256"),
                reference=(7.5, -0.0),
                **taken,
            ),
            self.measurement("ttft_s", reference=(0.2, 0.5, 1 / 7), **taken),
            self.measurement("tokens_per_s", 5e-324, 1.7e308, -0.0, 1e17, **taken),
            Measurement("kl_nats", (0.01, 0.02), "nat", "measured", "pooled", pooled=0.0125),
            Measurement("tpot_s", (0.5,), "s", "projected", "roofline", bounds=(0.25, 1.0)),
            Measurement("model_bytes", (), "B", "estimated", "sum", pooled=1e6, bounds=(1e6, 1e6)),
            unavailable("energy_j_per_token", "J", "no counter can be read here", "env-1"),
        )

    def story(
        self, study: Study, trial: Trial, attempt: int = 1, state: str = "done"
    ) -> list[Event]:
        """A trial runs: started, progress, measurements, kernels, a note, ended."""
        ids = study.id, trial.id
        return [
            events.event("trial-started", *ids, attempt=attempt, pid=77),
            events.event("progress", *ids, attempt=attempt, stage="load", share=0.25),
            events.event(
                "environment", *ids, environment="env-1", facts={"cpu": "Xeon", "cores": 2}
            ),
            *(events.MeasurementTaken(attempt, one).event(*ids) for one in self.measurements()),
            events.KernelsRan(
                attempt, (KernelCalls("gemm", "w4", 12), KernelCalls("norm", "rms", 2**40))
            ).event(*ids),
            events.event("note", *ids, attempt=attempt, text=f"attempt {attempt}"),
            events.event("progress", *ids, attempt=attempt, stage="measure", share=0.75),
            events.event("trial-ended", *ids, attempt=attempt, state=state, reason=""),
        ]

    def whole(self, study_id: str = "s-1") -> tuple[Study, list[Event]]:
        """A finished study of three trials, and its events."""
        study = self.study(study_id)
        words = (
            (),
            ("weight-int8",),
            ("prune-mlp", "weight-int4:group_size=64", "static-batch:size=8"),
        )
        trials = [
            self.trial(study, f"{study_id}-t{place}", *some) for place, some in enumerate(words)
        ]
        told = [events.study_created(study), *(events.trial_queued(trial) for trial in trials)]
        told.append(events.event("study-state", study_id, state="running", reason=""))
        for trial in trials:
            told += self.story(study, trial)
        told.append(events.event("study-state", study_id, state="done", reason="all trials ended"))
        return study.with_trials(tuple(trials)), told

    def random_events(self, seed: int) -> list[Event]:
        """What many attempts of many trials may leave, in a random order, some of it twice."""
        chance = random.Random(seed)
        found: list[Event] = []
        for number in range(3):
            study = self.study(f"s-{number}")
            found.append(events.study_created(study))
            for state in chance.choices(("running", "paused", "done"), k=2):
                found.append(events.event("study-state", study.id, state=state, reason=state * 2))
            for place in range(chance.randint(0, 5)):
                word = chance.choice(("weight-int8", "static-batch:size=4", "static-batch:size=2"))
                trial = self.trial(study, f"{study.id}-t{place}", word)
                found.append(events.trial_queued(trial))
                for attempt in range(1, 1 + chance.randint(0, 3)):
                    story = self.story(study, trial, attempt, chance.choice(("done", "failed")))
                    found += story[: chance.randint(1, len(story))]
        found += chance.choices(found, k=5)
        chance.shuffle(found)
        return found


class Server:
    """A private PostgreSQL server on a socket, without a network and without syncing."""

    migrated = "migrated"

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.number = 0
        # The server refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else getpass.getuser()

    def run(self, program: str, *words: str) -> None:
        """One of the package's programs, as the server's user."""
        command = [str(self.programs / program), *words]
        if os.getuid() == 0:
            command = ["runuser", "-u", self.user, "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self) -> None:
        """Make a cluster, start it, and migrate the database that most tests share."""
        if os.getuid() == 0:
            shutil.chown(self.folder, self.user)
        self.run("initdb", "-D", "data", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = (
            "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c autovacuum=off "
            f"-c max_connections=200 -c unix_socket_directories='{self.folder}'"
        )
        self.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
        open_store(self.database(self.migrated)).close()

    def stop(self) -> None:
        """End it at once; nothing is kept."""
        self.run("pg_ctl", "-D", "data", "-m", "immediate", "stop")

    def database(self, name: str = "") -> str:
        """The URL of a new, empty database."""
        self.number += 1
        name = name or f"test_{self.number}"
        self.execute("postgres", f"create database {name} template template0")
        return self.url(name)

    def empty(self) -> None:
        """Take all rows out of the shared database; a copy for every test would take longer."""
        names = ", ".join(metadata.tables)
        self.execute(self.migrated, f"set lock_timeout = '20s'; truncate {names}")

    def execute(self, name: str, statement: str) -> None:
        """Run a statement in a database, without our code."""
        import psycopg

        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(statement)

    def url(self, name: str) -> str:
        """Where a database is."""
        return f"postgresql://{self.user}@/{name}?host={self.folder}"


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty DuckDB file to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "empty.duckdb"
    open_store(str(path)).close()
    return path


@pytest.fixture
def file(tmp_path: Path, empty_store: Path) -> Path:
    """An empty store's file of this test's own."""
    return Path(shutil.copy(empty_store, tmp_path / "trimtab.duckdb"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server for the whole run; without one the tests that want it are skipped."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed (Debian's package: postgresql)")
    # Not below pytest's folders: those are closed to other users, and a socket's name must be
    # short.
    with tempfile.TemporaryDirectory(prefix="trimtab-pg-", dir="/tmp") as folder:
        started = Server(programs[-1].parent, Path(folder))
        started.start()
        try:
            yield started
        finally:
            started.stop()


@pytest.fixture
def database(server: Server) -> str:
    """The URL of the migrated database, emptied."""
    server.empty()
    return server.url(server.migrated)


KINDS = ("memory", "duckdb", "postgresql")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each store in turn, empty."""
    places = {"duckdb": "file", "postgresql": "database"}
    url = str(request.getfixturevalue(places[request.param])) if request.param in places else None
    opened = open_store(url or "memory:")
    yield opened
    opened.close()
