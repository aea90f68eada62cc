"""What training under rounding gains over rounding after training, at equal bits on `pycode`.

Prints, for 2, 3 and 4 bit, the KL divergence from the unchanged model on held-out text after each
post-training technique and after QAT at its defaults, with the seconds each took; exits 1 when QAT
is not the best at every width.

    python -m tests.evidence qat [--model MODEL]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from core.catalogue.models import resolve
from core.data.passages import held_out_windows
from core.engine.load.load import load_engine, load_tokenizer
from core.measure.quality.text import text_quality
from core.plan import Case, Technique
from core.target import Target
from core.techniques import BY_NAME, build
from core.techniques.deployment import Deployment
from core.workload import Workload

BITS = (2, 3, 4)
AFTER = (("rtn", {"symmetric": 1}), ("rtn", {"symmetric": 0}), ("gptq", {}), ("awq", {}))


def lost(model: str, technique: Technique) -> tuple[float, float]:
    """(KL in nats per token, seconds) of a technique on a model."""
    tokenizer, baseline = load_tokenizer(model), load_engine(model)
    target = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
    case = Case(resolve(model), target, Workload("chat", "Chat", "text", 32, 8))
    engine = load_engine(model)
    deployment = Deployment(case, engine, lambda: baseline, tokenizer=tokenizer)
    began = time.perf_counter()
    technique.apply(deployment)
    seconds = time.perf_counter() - began
    windows = held_out_windows(tokenizer, (0,), 12, 512)
    found = text_quality(deployment.engine, baseline, windows)
    return next(float(one.value or 0.0) for one in found if one.metric == "kl_nats"), seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="pycode")


def main(options: argparse.Namespace) -> int:
    """0 when QAT loses least at every width."""
    model = options.model
    sentences, won = [], True
    for bits in BITS:
        after = []
        for name, fields in AFTER:
            if name in BY_NAME:
                given: dict[str, Any] = {"bits": bits, **fields}
                nats, seconds = lost(model, build(name, given))
                print(f"{bits} bit {name} {fields}: {nats:.4f} nats, {seconds:.0f} s", flush=True)
                after.append(nats)
        nats, seconds = lost(model, build("qat", {"bits": bits}))
        print(f"{bits} bit qat: {nats:.4f} nats, {seconds:.0f} s", flush=True)
        won &= nats < min(after)
        sentences.append(f"{nats:.4f} against {min(after):.4f} at {bits} bit")
    print(
        f"On {model} QAT loses {', '.join(sentences)} (KL in nats per token of held-out text,"
        f" against the best technique without training): {'better' if won else 'NOT better'}"
        " at every width."
    )
    return 0 if won else 1
