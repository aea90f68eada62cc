"""Prints how quick the store is: `python tests/store/bench_store.py [STORE]`. Asserts nothing."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core import events, techniques
from core.measurement import Measurement
from core.metrics import METRICS
from core.model import DecoderShape, Model
from core.plan import Case, Plan
from core.priorities import Priorities
from core.study import Study, Trial
from core.target import Target
from core.workload import Workload
from store import TrialFilter, open_store

STUDIES, TRIALS, SAMPLES = 20, 50, 20
SHAPE = DecoderShape(256, 6, 8, 4, 32, 688, 4096, 1024)
CASE = Case(
    Model("pycode", "llama", "bundled", "r1", SHAPE),
    Target("local", "This machine", "cpu", "local", 2**33, 2e10, (("fp32", 1e11),), local=True),
    Workload("chat", "Chat", "text", 128, 64),
)


def study_events(number: int) -> list[events.Event]:
    """A finished study of 50 trials with 12 measurements each."""
    study = Study(
        f"s-{number:04}", CASE, Priorities(), created_at=f"2026-11-21T10:00:00.{number:03}"
    )
    found = [events.study_created(study)]
    for position in range(TRIALS):
        plan = Plan(CASE, (techniques.parse(f"static-batch:size={1 + position}"),))
        trial = Trial(f"{study.id}-t{position:03}", study.id, plan)
        found.append(events.trial_queued(trial))
        found.append(events.event("trial-started", study.id, trial.id, attempt=1, pid=1))
        for metric in METRICS[:12]:
            samples = tuple(0.1 * (position + sample) for sample in range(SAMPLES))
            one = Measurement(metric.name, samples, metric.unit, "measured", "timed", "env-1")
            found.append(events.measured(study.id, trial.id, 1, one))
        found.append(
            events.event("trial-ended", study.id, trial.id, attempt=1, state="done", reason="")
        )
    return found


def timed(name: str, work: Callable[[], Any], times: int = 7) -> None:
    """Print the median of some calls, and the first."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    print(
        f"{name:46} {statistics.median(seconds) * 1e3:9.1f} ms   first {seconds[0] * 1e3:8.1f} ms"
    )


def main() -> None:
    """Fill a store, then read it as the pages do."""
    made = [study_events(number) for number in range(STUDIES)]
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"{folder}/bench.duckdb"
        start = time.perf_counter()
        store = open_store(url)
        print(f"{'open a new store':46} {(time.perf_counter() - start) * 1e3:9.1f} ms")
        start = time.perf_counter()
        for batch in made:
            store.ingest(batch)
        spent = time.perf_counter() - start
        count = STUDIES * TRIALS * 12
        print(f"{'ingest, a study at a time':46} {count / spent:9.0f} measurements/s")
        timed("ingest again, nothing new (850 events)", lambda: store.ingest(made[3]))
        some = [study_events(1000 + number) for number in range(7)]
        one_by_one = [event for batch in some for event in batch][:200]
        start = time.perf_counter()
        for event in one_by_one:
            store.ingest([event])
        spent = (time.perf_counter() - start) / len(one_by_one)
        print(f"{'ingest one event':46} {spent * 1e3:9.1f} ms")
        timed("trial_rows, page of 200 of 1,000", lambda: store.trial_rows(TrialFilter(), 200))
        timed("trial_rows, all 1,000", lambda: store.trial_rows(TrialFilter(), 1000))
        timed("count_trials", lambda: store.count_trials(TrialFilter(text="size=7")))
        timed("study of 50 trials", lambda: store.study("s-0004"))
        timed("trial", lambda: store.trial("s-0004-t010"))
        timed("studies", lambda: store.studies())
        timed("progress", lambda: store.progress("s-0004"))
        store.close()


if __name__ == "__main__":
    main()
