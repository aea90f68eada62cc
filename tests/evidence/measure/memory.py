"""Prints, for each bundled model, the memory that was predicted and the memory that was held.

    python -m tests.evidence memory [--technique NAME[:key=value] ...] [--workload ID]

Predicted is arithmetic over the shape (core.predict.account); held are the real storages of the
weights, a real cache and the most that torch's allocator reported in one round. The process's own
pages are shown beside, with what they hold more: libraries. The last line is the worst difference;
the exit code is 1 when it is above 5 %.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from core import techniques
from core.catalogue import models, workloads
from core.engine.load.load import load_engine
from core.machine import targets
from core.measure.memory import measure_memory, reset_peak, resident_bytes
from core.measure.serve import Service
from core.measure.steps.load import rehearse
from core.plan import Case, Plan
from core.predict.account import account
from core.techniques.deployment import Deployment

ZOO = ("pycode", "pycode-small", "digits-cnn", "digits-mlp")
GOAL = 0.05


def service(plan: Plan, notes: list[str]) -> Service:
    """The plan applied to freshly loaded weights, with the requests of one group."""
    import torch

    case = plan.case
    deployment = Deployment(
        case, load_engine(case.model), lambda: load_engine(case.model), note=notes.append
    )
    for technique in plan.techniques:
        technique.apply(deployment)
    workload = plan.case.workload
    random = torch.Generator().manual_seed(0)
    requests: Any = torch.rand(deployment.serving.batch, 1, 8, 8, generator=random)
    if case.model.task == "text":
        shape = (deployment.serving.batch, workload.prompt_tokens)
        requests = torch.randint(0, case.model.decoder().vocabulary, shape, generator=random)
    return Service(deployment, workload, requests)


def one_model(plan: Plan) -> tuple[float, str]:
    """(held / predicted - 1, the table's lines).

    Measured twice: the first time also brings code and compiled kernels of libraries, which stay.
    """
    rehearse(plan, None, plan.case.model)
    notes: list[str] = []
    pages = []
    held: dict[str, float] = {}
    for _ in range(2):
        reset_peak()
        before = resident_bytes()
        served = service(plan, notes)
        found = measure_memory(served.deployment, plan, served.workload, served.round, before)
        held = {
            str(one.condition): one.value or 0.0 for one in found if one.metric == "memory_bytes"
        }
        pages += [one.value for one in found if one.metric == "peak_bytes"]
        del served
    need = account(plan)
    share = held[""] / need.total - 1
    lines = [f"{plan.case.model.id}: {notes[-1]}"]
    lines += [
        f"    {name!s:<24} predicted {size:>14,.0f} B   held {held.get(str(name), 0.0):>14,.0f} B"
        for name, size in need.parts()
    ]
    for which, peak in zip(("first", "second"), pages, strict=True):
        if peak is not None:
            more = peak - held[""]
            lines.append(
                f"    pages, {which} time{'':<{11 - len(which)}} {peak:>14,.0f} B: {more:+,.0f} B"
                " beside tensors (code, compiled kernels and scratch of libraries, page rounding)"
            )
    return share, "\n".join(lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--technique", action="append", default=[])
    parser.add_argument("--workload", default="chat")


def main(options: argparse.Namespace) -> int:
    """Run the experiment; 0 when the figure is reached."""
    local = replace(targets.resolve("local"), kind="cpu")
    worst, where = 0.0, ""
    for name in ZOO:
        model = models.resolve(name)
        text = model.task == "text"
        if not text and options.technique:
            continue
        case = Case(model, local, workloads.resolve(options.workload if text else "sensor-frame"))
        chosen = tuple(techniques.parse(one) for one in options.technique) if text else ()
        share, table = one_model(Plan(case, chosen))
        print(table, flush=True)
        if abs(share) >= abs(worst):
            worst, where = share, name
    print(
        f"Predicted and held memory differ by {abs(worst):.1%} at most over the zoo ({where});"
        f" the goal is {GOAL:.0%}."
    )
    return 0 if abs(worst) <= GOAL else 1
