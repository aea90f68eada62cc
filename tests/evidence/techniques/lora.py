"""How much of what quantization lost low-rank adapters give back, on `pycode`.

Prints the KL divergence from the unchanged model on held-out text with and without adapters at
their defaults, at 3 bit and NF4; exits 1 when less than SHARE of it is recovered.

    python -m tests.evidence lora [--model MODEL]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from core.catalogue.models import resolve
from core.data.passages import held_out_windows
from core.engine.load.load import load_engine, load_tokenizer
from core.measure.quality.text import text_quality
from core.plan import Case
from core.target import Target
from core.techniques import build
from core.techniques.deployment import Deployment
from core.workload import Workload

SHARE = 0.4
BASES: tuple[tuple[str, dict[str, Any]], ...] = (("rtn", {"bits": 3}), ("nf4", {}))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="pycode")


def main(options: argparse.Namespace) -> int:
    """0 when adapters recover at least SHARE of the KL on every base."""
    model = options.model
    tokenizer, baseline = load_tokenizer(model), load_engine(model)
    target = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
    case = Case(resolve(model), target, Workload("chat", "Chat", "text", 32, 8))
    windows = held_out_windows(tokenizer, (0,), 12, 512)

    def kl(engine: Any) -> float:
        found = text_quality(engine, baseline, windows)
        return next(float(one.value or 0.0) for one in found if one.metric == "kl_nats")

    sentences, enough = [], True
    for name, fields in BASES:
        deployment = Deployment(case, load_engine(model), lambda: baseline, tokenizer=tokenizer)
        build(name, dict(fields)).apply(deployment)
        before, size = kl(deployment.engine), deployment.engine.weight_bytes()
        began = time.perf_counter()
        build("lora", {}).apply(deployment)
        seconds = time.perf_counter() - began
        after, share = kl(deployment.engine), deployment.engine.weight_bytes() / size - 1
        recovered = 1 - after / before
        enough &= recovered >= SHARE
        what = f"{name}{fields or ''}"
        print(f"{what}: {before:.4f} -> {after:.4f} nats, {seconds:.0f} s, {share:.1%} more bytes")
        sentences.append(f"{recovered:.0%} of {before:.4f} nats on {what}")
    print(
        f"On {model} adapters at their defaults recover {' and '.join(sentences)} (KL per token of"
        f" held-out text); {'at least' if enough else 'NOT at least'} {SHARE:.0%} each."
    )
    return 0 if enough else 1
