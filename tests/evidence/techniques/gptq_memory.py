"""How much memory does GPTQ's calibration take? Peak of the process, and seconds.

    python -m tests.evidence gptq-memory                   shape:qwen2.5-0.5b
    python -m tests.evidence gptq-memory --layers 2        a cut model, for a try

Loads the model, applies the technique as a trial does, and prints what the process held at most,
the loaded model included and the libraries not, as a share of the model's own 16-bit weights. At
most 3 times is the goal; the last line says it, exit 1 when it is missed. A cut model has no
verdict: its embedding and head are as large as before. Run it on a machine that does nothing else:
the seconds are printed too.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from core import techniques
from core.catalogue import models, workloads
from core.engine.load.load import load_engine, random_engine, shape_config
from core.machine import targets
from core.measure.memory.process import peak_resident_bytes, reset_peak, resident_bytes
from core.measure.steps.load import rehearse
from core.plan import Case, Plan
from core.techniques.deployment import Deployment

GOAL = 3.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="shape:qwen2.5-0.5b")
    parser.add_argument("--technique", default="gptq")
    parser.add_argument("--layers", type=int, default=0, help="keep only so many layers")


def main(options: argparse.Namespace) -> int:
    """Calibrate once; 0 when the figure is reached."""
    technique = techniques.parse(options.technique)
    case = Case(
        models.resolve(options.model), targets.resolve("local"), workloads.resolve("autocomplete")
    )
    rehearse(Plan(case, (technique,)), None, case.model)
    if not reset_peak():
        print("this system does not let a process reset its peak: nothing was measured")
        return 1
    before = resident_bytes() or 0
    if options.layers:
        config = shape_config(options.model)
        sizes = config.intermediate_sizes[: options.layers]
        engine = random_engine(replace(config, num_layers=options.layers, intermediate_sizes=sizes))
    else:
        engine = load_engine(case.model)
    weights = engine.weight_bytes()
    loaded = (peak_resident_bytes() or 0) - before
    reset_peak()
    deployment = Deployment(case, engine, lambda: None, note=print)
    began = time.perf_counter()
    technique.apply(deployment)
    seconds = time.perf_counter() - began
    peak = (peak_resident_bytes() or 0) - before
    print(f"weights {weights:,} B; peak while loading {loaded:,} B, while calibrating {peak:,} B")
    reached = bool(options.layers) or peak <= GOAL * weights
    verdict = "no verdict" if options.layers else "reached" if reached else "MISSED"
    cut = f" cut to {options.layers} layers" if options.layers else ""
    print(
        f"{options.technique} on {options.model}{cut} holds at most {peak / weights:.2f} times its"
        f" 16-bit weights (goal: {GOAL:g}), model included, in {seconds:.0f} s: {verdict}"
    )
    return 0 if reached else 1
