"""How quick the store is: `python -m tests.evidence store [--count N] [--store URL]`.

Ingests N measurements (100,000 when not said) of 30 samples each, as 20 studies of 50 trials leave
them, then asks everything that a page asks. The last two lines are the figures; exit 1 when one is
missed: 20,000 measurements/s, and no page query of 200 ms or more.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from core import techniques
from core.condition import AS_ASKED, prompt_tokens
from core.ids import now
from core.journal import events
from core.journal.events import Event
from core.measurement import Measurement
from core.metrics import METRICS
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.priorities import Priorities
from core.report import Report
from core.study import KernelCalls, Study, Trial
from core.target import Target
from core.workload import Workload
from store import Store, TrialFilter, open_store

STUDIES, TRIALS, SAMPLES = 20, 50, 30
INGEST_PER_S, QUERY_MS = 20_000, 200
SHAPE = DecoderShape(256, 6, 8, 4, 32, 688, 4096, 1024)
CASE = Case(
    Model("pycode", "llama", "bundled", "r1", SHAPE),
    Target("local", "This machine", "cpu", "local", 2**33, 2e10, (("fp32", 1e11),), local=True),
    Workload("chat", "Chat", "text", 128, 64),
)


def study_events(number: int, per_trial: int) -> list[Event]:
    """A finished study of 50 trials: every metric as it is asked, then under varied conditions."""
    chance = random.Random(number)
    study = Study(
        f"s-{number:04}", CASE, Priorities(), created_at=f"2026-11-21T10:00:00.{number:03}"
    )
    found = [events.study_created(study)]
    for position in range(TRIALS):
        plan = Plan(CASE, (techniques.parse(f"static-batch:size={1 + position}"),))
        trial = Trial(f"{study.id}-t{position:03}", study.id, plan)
        ids = study.id, trial.id
        found.append(events.trial_queued(trial))
        found.append(events.event("trial-started", *ids, attempt=1, pid=1))
        for place in range(per_trial):
            metric = METRICS[place % len(METRICS)]
            varied = place // len(METRICS)
            samples = tuple(chance.lognormvariate(-3, 0.1) for _ in range(SAMPLES))
            one = Measurement(
                metric.name,
                samples,
                metric.unit,
                "measured",
                "median of repeated rounds after the warm-up became steady",
                "env-1",
                now(),
                condition=prompt_tokens(64 * varied) if varied else AS_ASKED,
            )
            found.append(events.MeasurementTaken(1, one).event(*ids))
        found.append(events.KernelsRan(1, (KernelCalls("linear_w8", "avx512", 4096),)).event(*ids))
        found.append(events.event("trial-ended", *ids, attempt=1, state="done", reason=""))
    return found


def asked(store: Store) -> dict[str, Callable[[], Any]]:
    """What the pages ask, by name."""
    return {
        "trial_rows, page of 200": lambda: store.trial_rows(TrialFilter(), 200),
        "trial_rows, all 1,000": lambda: store.trial_rows(TrialFilter(), 1000),
        "trial_rows, the last page": lambda: store.trial_rows(TrialFilter(), 200, 800),
        "trial_rows, one study": lambda: store.trial_rows(TrialFilter(study_id="s-0004")),
        "trial_rows, a text": lambda: store.trial_rows(TrialFilter(text="size=7"), 200),
        "trial_rows, states": lambda: store.trial_rows(TrialFilter(states=("done",)), 200),
        "count_trials": lambda: store.count_trials(TrialFilter(text="size=7")),
        "studies": lambda: store.studies(),
        "study of 50 trials": lambda: store.study("s-0004"),
        "trial": lambda: store.trial("s-0004-t010"),
        "progress": lambda: store.progress("s-0004"),
        "environment": lambda: store.environment("env-1"),
        "reports": lambda: store.reports(),
    }


def timed(work: Callable[[], Any], times: int = 7) -> tuple[float, float]:
    """Milliseconds of some calls: their median and the slowest."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent), max(spent)


def run(count: int, url: str | None) -> bool:
    """Fill a store, read it as the pages do; whether both figures were reached."""
    per_trial = max(1, count // (STUDIES * TRIALS))
    made = [study_events(number, per_trial) for number in range(STUDIES)]
    facts = events.event("environment", "s-0000", "s-0000-t000", environment="env-1", facts={})
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = open_store(url or f"{folder}/bench.duckdb")
        print(f"{'open a new store':32} {(time.perf_counter() - start) * 1e3:9.1f} ms")
        # The first statement imports what DuckDB wants; a server does that once, before any study.
        store.ingest([facts])
        start = time.perf_counter()
        for batch in made:
            store.ingest(batch)
        rate = STUDIES * TRIALS * per_trial / (time.perf_counter() - start)
        store.save_report(Report("r-1", 1, "One", store.study("s-0001"), (), "", now()))
        again, _ = timed(lambda: store.ingest(made[3]), 3)
        print(f"{'ingest a study again':32} {again:9.1f} ms")
        story = study_events(1000, 12)[:200]
        one_by_one = iter(story)
        one, _ = timed(lambda: store.ingest([next(one_by_one)]), len(story))
        print(f"{'ingest one event':32} {one:9.1f} ms")
        slowest, name = 0.0, ""
        for what, work in asked(store).items():
            median, most = timed(work)
            print(f"{what:32} {median:9.1f} ms   slowest {most:8.1f} ms")
            slowest, name = max((slowest, name), (median, what))
        store.close()
    print(
        f"ingest: {rate:,.0f} measurements/s of {SAMPLES} samples in batches of a study, each"
        f" synced to the disk (wanted: {INGEST_PER_S:,})"
    )
    print(
        f"queries: {STUDIES * TRIALS * per_trial:,} measurements in {STUDIES * TRIALS:,} trials:"
        f" the slowest page query ({name}) takes {slowest:.0f} ms (wanted: under {QUERY_MS} ms)"
    )
    return rate >= INGEST_PER_S and slowest < QUERY_MS


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--store", default=None)


def main(options: argparse.Namespace) -> int:
    """0 when the figure is reached."""
    return 0 if run(options.count, options.store) else 1
