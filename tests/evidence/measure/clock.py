"""What does measuring add to what is measured?

    python -m tests.evidence clock

The same requests are served in turns: once as a trial serves a round, with its clock, its watch for
other processes and its energy book, and once by the bare generation loop. Prints by how much the
timed region is longer than the bare loop, with its 95 % interval; exit 1 when by 2 % or more.
"""

from __future__ import annotations

import time

from core.catalogue import models, workloads
from core.data.passages import prompts
from core.engine.load.load import load_engine, load_tokenizer
from core.engine.serve.generate import generate
from core.machine import targets
from core.machine.watch import waited_seconds
from core.measure.energy import find_meter
from core.measure.serve import Service
from core.measure.timing import alternate, warm_up
from core.plan import Case
from core.statistics.interleave import ratio_interval
from core.techniques.deployment import Deployment

MOST = 0.02


def main() -> int:
    """Compare both ways; 0 when measuring adds under 2 %."""
    case = Case(models.resolve("pycode-small"), targets.resolve("local"), workloads.resolve("chat"))
    deployment = Deployment(case, load_engine(case.model), lambda: None)
    workload = case.workload
    asked = prompts(
        load_tokenizer(case.model),
        deployment.prefix,
        1,
        workload.prompt_tokens,
        case.model.decoder().vocabulary,
        0,
    )
    service = Service(deployment, workload, asked)

    book = find_meter("cpu", case.target, 5.0).book(
        service.asked, workload.prompt_tokens, len(asked)
    )

    def measured() -> float:
        waited_seconds()
        with book.round():
            taken = service.round(book).seconds
        waited_seconds()
        return taken

    def bare() -> float:
        began = time.perf_counter()
        generate(deployment.engine, asked, workload.output_tokens)
        return time.perf_counter() - began

    warm_up(measured)
    pairs = alternate(measured, bare, 300, 5.0, lambda share: None)
    found = ratio_interval(
        tuple(ours for ours, _ in pairs), tuple(theirs for _, theirs in pairs if theirs is not None)
    )
    assert found is not None
    ratio, low, high = (one - 1 for one in found)
    word = "reached" if high < MOST else "MISSED"
    print(
        f"measuring adds {ratio:.2%} (95 % interval {low:.2%} to {high:.2%}, {len(pairs)} pairs) to"
        f" the timed region of the smallest model, under {MOST:.0%} is asked: {word}"
    )
    return 0 if high < MOST else 1
