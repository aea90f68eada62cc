"""R7: many threads write and read one store, and nothing is lost, doubled or read wrong.

    python -m tests.evidence threads [--threads 64] [--writes 1000] [--stores 4] [--store URL]

Each thread makes its writes one after another: batches of measurements of its own trials, batches
that other threads bring too (each event must be new to exactly one of them), and report versions
that several want to save (exactly one may). Between them it reads: its own trial must be what was
acknowledged, another's must be whole batches of what that thread writes. The threads share some
stores on one file, so that transactions really collide. At the end the database is asked, without
our code, what it holds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import text

from core import techniques
from core.errors import StoreError
from core.journal import events
from core.journal.events import Event
from core.measurement import Measurement
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.priorities import Priorities
from core.report import Report
from core.study import Study, Trial
from core.target import Target
from core.workload import Workload
from store import Store, TrialFilter, open_store, repository
from store.engine import connect
from store.place import locate

PER_BATCH, WRITES_A_TRIAL, SHARING, TOGETHER = 3, 25, 8, 10
CASE = Case(
    Model("pycode", "llama", "bundled", "r1", DecoderShape(64, 2, 4, 2, 16, 176, 512, 256)),
    Target("local", "This machine", "cpu", "local", 2**33, 2e10, (("fp32", 1e11),), local=True),
    Workload("chat", "Chat", "text", 128, 64),
)


@dataclass
class Shared:
    """What several threads bring: the same events, the same report versions."""

    batches: list[list[Event]]
    study: Study


@dataclass
class Worker:
    """One thread's writes, what was acknowledged to it, and what it saw."""

    number: int
    store: Store
    others: int
    new: int = 0
    saved: list[tuple[str, int]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    writes: int = 0
    kept: dict[str, int] = field(default_factory=dict)

    @property
    def study_id(self) -> str:
        """The study of this thread."""
        return f"s-{self.number:03}"

    def run(self, writes: int, shared: Shared, gate: threading.Barrier) -> None:
        """All writes, with reads between; whatever goes wrong is noted."""
        gate.wait()
        try:
            study = Study(self.study_id, CASE, Priorities(), created_at="2026-11-21T10:00:00.000")
            self.keep([events.study_created(study)])
            chance = random.Random(self.number)
            for write in range(1, writes):
                if write % TOGETHER == 0:
                    # All at once, so that they collide.
                    gate.wait()
                    self.keep_shared(shared, write)
                elif write % TOGETHER == TOGETHER // 2:
                    gate.wait()
                    self.save(shared, write)
                elif chance.random() < 0.05:
                    self.keep_shared(shared, write)
                else:
                    self.measure(study, write)
                if write % 10 == 0:
                    self.read_own()
                    self.read_other(chance.randrange(self.others))
        except Exception as error:
            gate.abort()
            self.wrong.append(f"{self.study_id}: {type(error).__name__}: {error}")

    def keep(self, batch: list[Event]) -> None:
        """A batch that nobody else brings: all of it must be new."""
        found = self.store.ingest(batch)
        self.writes += 1
        self.new += found
        self.ids += [one.id for one in batch]
        if found != len(batch):
            self.wrong.append(f"{self.study_id}: {found} of {len(batch)} events were new")

    def measure(self, study: Study, write: int) -> None:
        """Measurements of the running trial; now and then the next trial."""
        place = write // WRITES_A_TRIAL
        trial_id = f"{self.study_id}-t{place:03}"
        batch = []
        if trial_id not in self.kept:
            word = f"static-batch:size={place + 1}"
            trial = Trial(trial_id, self.study_id, Plan(CASE, (techniques.parse(word),)))
            batch += [
                events.trial_queued(trial),
                events.event("trial-started", self.study_id, trial_id, attempt=1, pid=self.number),
            ]
        done = self.kept.get(trial_id, 0)
        batch += [
            events.MeasurementTaken(1, taken(self.number, done + 1, place)).event(
                self.study_id, trial_id
            )
            for place in range(PER_BATCH)
        ]
        self.keep(batch)
        self.kept[trial_id] = done + 1

    def keep_shared(self, shared: Shared, write: int) -> None:
        """A batch that others bring at about the same time."""
        batch = shared.batches[write // TOGETHER]
        self.new += self.store.ingest(batch)
        self.writes += 1

    def save(self, shared: Shared, write: int) -> None:
        """A report version that only one thread may save."""
        name, version = f"r-{self.number % SHARING}", write // TOGETHER
        report = Report(name, version, "One", shared.study, (), "", "2026-11-21T10:00:00.000")
        self.writes += 1
        try:
            self.store.save_report(report)
            self.saved.append((name, version))
        except StoreError as error:
            if "is saved already" not in str(error):
                raise

    def read_own(self) -> None:
        """What was acknowledged to this thread is there, and nothing else."""
        if not self.kept:
            return
        trial_id, batches = list(self.kept.items())[-1]
        trial = self.store.trial(trial_id)
        wanted = tuple(
            taken(self.number, batch + 1, place)
            for batch in range(batches)
            for place in range(PER_BATCH)
        )
        self.reads += 1
        if trial is None or trial.measurements != wanted or trial.id != trial_id:
            self.wrong.append(f"{trial_id}: it is not read as it was acknowledged")

    def read_other(self, number: int) -> None:
        """Of another thread's trials only whole batches are seen, in order."""
        for row in self.store.trial_rows(TrialFilter(study_id=f"s-{number:03}"), limit=1):
            trial = self.store.trial(row["id"])
            self.reads += 1
            found = () if trial is None else trial.measurements
            wanted = tuple(
                taken(number, place // PER_BATCH + 1, place % PER_BATCH)
                for place in range(len(found))
            )
            if not found or found != wanted or len(found) % PER_BATCH:
                self.wrong.append(f"{row['id']}: another thread reads it wrongly")
            if row["ttft_s"] != taken(number, 1, 0).value or row["study_id"] != f"s-{number:03}":
                self.wrong.append(f"{row['id']}: its row is wrong")


def taken(number: int, batch: int, place: int) -> Measurement:
    """A measurement whose samples say who wrote it and when."""
    samples = (float(number), float(batch), float(place))
    return Measurement("ttft_s", samples, "s", "measured", f"{number}/{batch}/{place}")


def held(url: str) -> tuple[list[str], int, list[tuple[str, int]]]:
    """Event ids, how many measurements, and report versions, without our reading code."""
    engine = connect(locate(url))
    with engine.connect() as connection:
        # Reports are events too, which save_report makes: they are counted as reports.
        own = "select id from events where kind != 'report-saved'"
        ids = [str(row[0]) for row in connection.execute(text(own))]
        measured = connection.execute(text("select count(*) from measurements")).scalar_one()
        query = text("select report_id, version from reports")
        reports = [(str(row[0]), int(row[1])) for row in connection.execute(query)]
    engine.dispose()
    return ids, int(measured), reports


def run(threads: int, writes: int, stores: int, url: str | None = None) -> bool:
    """Let the threads go, then compare; print the figure."""
    conflicts: Counter[str] = Counter()
    judge = repository._is_conflict

    def counted(error: object) -> bool:
        found = judge(error)  # type: ignore[arg-type]
        if found:
            conflicts[type(error).__name__] += 1
        return found

    repository._is_conflict = counted  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = url or f"{folder}/threads.duckdb"
            return _run(place, threads, writes, stores, conflicts)
    finally:
        repository._is_conflict = judge


def _run(url: str, threads: int, writes: int, stores: int, conflicts: Counter[str]) -> bool:
    opened = [open_store(url) for _ in range(stores)]
    shared = Shared(
        [
            [
                events.event("note", "s-shared", "t", attempt=1, text=f"{batch}/{place}")
                for place in range(PER_BATCH)
            ]
            for batch in range(writes // TOGETHER + 1)
        ],
        Study("s-shared", CASE, Priorities(), created_at="2026-11-21T10:00:00.000"),
    )
    crew = [Worker(number, opened[number % stores], threads) for number in range(threads)]
    gate = threading.Barrier(threads)
    start = time.perf_counter()
    running = [threading.Thread(target=one.run, args=(writes, shared, gate)) for one in crew]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    spent = time.perf_counter() - start
    for store in opened:
        store.close()

    problems = [what for one in crew for what in one.wrong]
    kept, measured, reports = held(url)
    ids, count = set(kept), len(kept)
    acknowledged = sum(one.new for one in crew)
    own = {name for one in crew for name in one.ids}
    brought = {event.id for batch in shared.batches for event in batch}
    if count != acknowledged:
        problems.append(f"{count} events are kept, {acknowledged} were acknowledged")
    if not own <= ids or not ids <= own | brought:
        strange = len(ids - own - brought)
        problems.append(f"{len(own - ids)} events are lost, {strange} came unasked")
    if measured != PER_BATCH * sum(sum(one.kept.values()) for one in crew):
        problems.append(f"{measured} measurements are kept")
    saved = [version for one in crew for version in one.saved]
    if sorted(saved) != sorted(reports):
        problems.append(f"{len(saved)} report versions were acknowledged, {len(reports)} are kept")
    for what in problems[:20]:
        print(what)
    made = sum(one.writes for one in crew)
    collided = ", ".join(f"{times} {name}" for name, times in sorted(conflicts.items())) or "none"
    print(
        f"R7: {threads} threads made {made:,} mixed writes in {spent:.0f} s: {acknowledged:,}"
        f" events acknowledged and {count:,} kept, {len(saved):,} report versions acknowledged and"
        f" {len(reports):,} kept, {sum(one.reads for one in crew):,} reads, conflicts tried again:"
        f" {collided}; {len(problems)} lost, unretried or wrong (wanted: 0)"
    )
    return not problems and made == threads * writes


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--writes", type=int, default=1000, help="of each thread")
    parser.add_argument("--stores", type=int, default=4)
    parser.add_argument("--store", default=None)


def main(options: argparse.Namespace) -> int:
    """0 when the figure is reached."""
    reached = run(options.threads, options.writes, options.stores, options.store)
    return 0 if reached else 1
