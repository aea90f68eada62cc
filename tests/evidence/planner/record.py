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
    parser.add_argument("space", choices=sorted(SPACES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8, help="timed rounds of each plan")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no plan after")


def main(options: argparse.Namespace) -> int:
    """Measure what the file does not have yet; 0 when the space is whole."""
    plans = SPACES[options.space].plans(detect_local())
    known = {line["plan"] for line in lines(options.out)}
    left = [plan for plan in plans if spelled(plan) not in known]
    random.Random(0).shuffle(left)
    identifier, facts = environment()
    began, failed = time.monotonic(), 0
    with options.out.open("a+", encoding="utf-8") as out:
        # A line that a kill cut off stays alone.
        out.seek(0)
        text = out.read()
        if text and not text.endswith("\n"):
            out.write("\n")
        if not known:
            head = {"plan": None, "space": options.space, "environment": identifier, "facts": facts}
            out.write(json.dumps(head) + "\n")
        while left and time.monotonic() - began < options.seconds:
            row = measured(left.pop(), identifier, options.rounds)
            failed += row["state"] != "done"
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{row['seconds']:5.1f} s {row['state']} {row['plan'] or 'baseline'}", flush=True)
    whole = len(plans) - len(left)
    print(
        f"{options.space}: {whole} of {len(plans)} plans are in {options.out.name}, {failed} failed"
    )
    return int(bool(left))


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, without its head; empty where there is none. A line that a kill cut off
    is left out.
    """
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["plan"] is not None:
                rows.append(row)
    return rows


def measured(plan: Plan, identifier: str, rounds: int) -> dict[str, Any]:
    """One plan as a row: `metrics` by name, and by name and condition where one was varied."""
    taken: list[Measurement] = []
    notes: list[str] = []

    def emit(kind: str, **body: Any) -> None:
        if kind == "measurement":
            taken.append(body["measurement"])
        elif kind == "note" and body.get("caution"):
            notes.append(body["caution"])

    torch.manual_seed(plan.seed)
    state, reason, began = "done", "", time.perf_counter()
    try:
        run_trial(plan, "quick", identifier, emit, rounds=rounds)
    except TrimtabError as error:
        state, reason = "refused", str(error)
    seconds = time.perf_counter() - began
    trial = Trial("t", "s", plan, state, reason, measurements=tuple(taken))
    return {
        "plan": spelled(plan),
        "state": state,
        "reason": reason,
        "seconds": round(seconds, 2),
        "cautions": sorted(set(notes)),
        "metrics": {_name(row): _values(row, trial) for row in taken if row.value is not None},
    }


def _name(row: Measurement) -> str:
    return f"{row.metric} {row.condition}" if row.condition else row.metric


def _values(row: Measurement, trial: Trial) -> dict[str, Any]:
    """Value with its interval and, for the metrics as they are asked, the ratio of the pairs."""
    low, high = row.interval() or (None, None)
    values = {"value": row.value, "low": finite(low), "high": finite(high), "n": row.n}
    if row.reference and not row.condition and not metric(row.metric).unjudged:
        unchanged = Trial("b", "s", Plan(trial.plan.case, (), trial.plan.seed), "done")
        judgement = against(trial, unchanged, row.metric)
        values |= {
            "ratio": finite(judgement.ratio),
            "ratio_low": finite(judgement.low),
            "ratio_high": finite(judgement.high),
        }
    return values
