"""Every plan of a space, measured as a trial measures it, so that a search can be held against the
truth.

    python -m tests.evidence record-space SPACE --out FILE.jsonl [--rounds 8] [--seconds 3600]

Plans are measured in an order that has nothing to do with their settings, so that the hour is not
mistaken for them, each in turns with the unchanged model. A line of FILE is a plan: what its
metrics came to, their ratios to the unchanged model as the judge has them, and what measuring took.
Running it again goes on where the file ends. Takes about an hour a space, and a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch

from core.errors import TrimtabError
from core.journal.events import NoteWritten
from core.machine.environment import environment
from core.machine.targets import detect_local
from core.measure.trial import run_trial
from core.measurement import Measurement
from core.metrics import metric
from core.plan import Plan
from core.study import Trial
from core.verdict.against import against
from core.verdict.documents import finite
from tests.evidence.planner.spaces import SPACES, spelled


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", nargs="?", choices=sorted(SPACES), default="pycode-chat")
    parser.add_argument("--out", type=Path, default=Path("space.jsonl"))
    parser.add_argument("--rounds", type=int, default=8, help="timed rounds of each plan")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no plan after")


def main(options: argparse.Namespace) -> int:
    """Measure what the file does not have yet; 0 when the space is whole."""
    plans = SPACES[options.space].plans(detect_local())
    known = {row["plan"] for row in rows(options.out)}
    left = [plan for plan in plans[1:] if spelled(plan) not in known]
    random.Random(0).shuffle(left)
    identifier, facts = environment()
    began, failed = time.monotonic(), 0
    with options.out.open("a+", encoding="utf-8") as out:

        def write(row: dict[str, Any]) -> None:
            out.write(json.dumps(row) + "\n")
            out.flush()

        # A line that a kill cut off stays alone.
        out.seek(0)
        text = out.read()
        if text and not text.endswith("\n"):
            out.write("\n")
        if not known:
            about = {"space": options.space, "environment": identifier, "facts": facts}
            write({"plan": None, **about})
        unchanged, seconds = trial_of(plans[0], identifier, options.rounds)
        if "" not in known:
            write(row_of(unchanged, unchanged, seconds))
        while left and time.monotonic() - began < options.seconds:
            trial, seconds = trial_of(left.pop(), identifier, options.rounds)
            failed += trial.state != "done"
            write(row_of(trial, unchanged, seconds))
            print(f"{seconds:5.1f} s {trial.state} {spelled(trial.plan)}", flush=True)
    there = len(plans) - len(left)
    print(f"{options.space}: {there} of {len(plans)} plans are there, {failed} did not end well")
    return int(bool(left))


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, without its head; empty where there is none. A line that a kill cut off
    is left out.
    """
    read = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["plan"] is not None:
                read.append(row)
    return read


def trial_of(plan: Plan, identifier: str, rounds: int) -> tuple[Trial, float]:
    """The plan measured in this process, and the seconds that it took."""
    taken: list[Measurement] = []
    notes: list[str] = []

    def emit(kind: str, **body: Any) -> None:
        if kind == "measurement":
            taken.append(body["measurement"])
        elif kind == "note":
            notes.append(NoteWritten(1, **body).line)

    torch.manual_seed(plan.seed)
    state, reason, began = "done", "", time.perf_counter()
    try:
        run_trial(plan, "quick", identifier, emit, rounds=rounds)
    except TrimtabError as error:
        state, reason = "refused", str(error)
    seconds = time.perf_counter() - began
    id_ = "t" if plan.techniques else "b"
    return Trial(
        id_, "s", plan, state, reason, measurements=tuple(taken), notes=tuple(notes)
    ), seconds


def row_of(trial: Trial, unchanged: Trial, seconds: float) -> dict[str, Any]:
    """`metrics` by name, and by name and condition where one was varied."""
    known = [row for row in trial.measurements if row.value is not None]
    return {
        "plan": spelled(trial.plan),
        "state": trial.state,
        "reason": trial.reason,
        "seconds": round(seconds, 2),
        "cautions": sorted({caution.kind for caution in trial.cautions}),
        "metrics": {_name(row): _values(row, trial, unchanged) for row in known},
    }


def _name(row: Measurement) -> str:
    return f"{row.metric} {row.condition}" if row.condition else row.metric


def _values(row: Measurement, trial: Trial, unchanged: Trial) -> dict[str, Any]:
    """Value with its interval and, for the metrics as they are asked, the ratio to the unchanged
    model.
    """
    low, high = row.interval() or (None, None)
    values = {"value": row.value, "low": finite(low), "high": finite(high), "n": row.n}
    if not row.condition and not metric(row.metric).unjudged:
        judgement = against(trial, unchanged, row.metric)
        if judgement.ratio is not None:
            values |= {
                "ratio": finite(judgement.ratio),
                "ratio_low": finite(judgement.low),
                "ratio_high": finite(judgement.high),
            }
    return values
