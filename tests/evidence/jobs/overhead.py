"""What a trial costs beyond its timed rounds, through the real supervisor on a quiet machine.

    python -m tests.evidence overhead [--count 5] [--model pycode] [--limit 4]

A trial's cost is the wall time from asking the supervisor until the trial has ended and all is
stored. Its timed work are the timed rounds themselves, from their own samples: starting the
process, imports, loading, warming up, judging the quality and storing all count as beyond.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from app.jobs.supervisor import Supervisor
from app.planning import plan_study
from core.journal.events import Event
from core.priorities import Priorities
from core.study import Trial
from store import open_store


def timed_s(trial: Trial) -> float:
    """Seconds of the trial's timed rounds: tokens of a round over the rate of each, the unchanged
    model's between them included.
    """
    total = 0.0
    for one in trial.measurements:
        if one.metric == "tokens_per_s" and not one.condition:
            workload = trial.plan.case.workload
            tokens = workload.concurrency * workload.output_tokens
            total += sum(tokens / rate for rate in (*one.samples, *one.reference))
    return total


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--model", default="pycode")
    parser.add_argument("--workload", default="chat")
    parser.add_argument("--limit", type=float, default=4.0)


def main(options: argparse.Namespace) -> int:
    beyond = []
    for _ in range(options.count):
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            steps: list[tuple[float, str]] = []

            def hear(event: Event, steps: list[tuple[float, str]] = steps) -> None:
                stage = str(event.body.get("stage", "")) if event.kind == "progress" else ""
                if not steps or steps[-1][1] != (stage or event.kind):
                    steps.append((time.perf_counter(), stage or event.kind))

            store = open_store(str(Path(folder) / "store.duckdb"))
            supervisor = Supervisor(store, Path(folder) / "studies", hear)
            study, plans = plan_study(
                options.model, "local", options.workload, Priorities(), ("weight-int8",)
            )
            began = time.perf_counter()
            supervisor.submit(study, plans[:1])
            ended = supervisor.wait(study.id)
            cost = time.perf_counter() - began
            supervisor.close()
            store.close()
        trial = ended.trials[0]
        if trial.state != "done":
            print(f"the trial is {trial.state}: {trial.reason}")
            return 1
        beyond.append(cost - timed_s(trial))
        at = "  ".join(f"{when - began:.2f} {what}" for when, what in steps)
        print(f"{cost:6.2f} s, {timed_s(trial):.2f} s of it timed rounds:  {at}")
    middle = statistics.median(beyond)
    print(
        f"a trial of {options.model} costs {middle:.2f} s beyond its timed work"
        f" (median of {len(beyond)}; at most {options.limit:g} s)"
    )
    return 0 if middle <= options.limit else 1
