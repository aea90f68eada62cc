"""What W8A8, SmoothQuant and LLM.int8() cost `pycode` in quality, on held-out text.

    python -m tests.evidence w8a8

Mean KL from the bf16 model to each, over 24 windows of 256 tokens of modules that neither training
nor calibration saw. The last line is the figure; exit 1 when smoothing does not halve what static
scales lose, or LLM.int8() does not lose less than plain dynamic W8A8.
"""

from __future__ import annotations

from typing import Any

import torch

from core.catalogue.models import resolve
from core.data.passages import held_out_windows
from core.engine.load.load import load_engine, load_tokenizer
from core.plan import Case
from core.target import Target
from core.techniques import parse
from core.techniques.deployment import Deployment
from core.workload import Workload

SETTINGS = (
    "weight-int8",
    "w8a8",
    "w8a8:smooth=0.5",
    "w8a8:smooth=0.8",
    "w8a8:mode=static",
    "w8a8:mode=static,percentile=99.99",
    "w8a8:mode=static,smooth=0.5",
    "w8a8:mode=static,smooth=0.8",
    "llm-int8",
    "llm-int8:threshold=24",
)


@torch.inference_mode()
def log_probabilities(engine: Any, ids: torch.Tensor) -> torch.Tensor:
    """fp64 [windows, tokens, vocabulary]."""
    return torch.log_softmax(engine.forward(ids).double(), -1)


def main() -> int:
    """Print the table and the figure."""
    target = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
    case = Case(resolve("pycode"), target, Workload("chat", "Chat", "text", 32, 8))
    tokenizer = load_tokenizer("pycode")

    def deployed(notes: list[str]) -> Deployment:
        return Deployment(
            case,
            load_engine("pycode"),
            lambda: load_engine("pycode"),
            tokenizer=tokenizer,
            note=notes.append,
        )

    baseline = deployed([])
    windows = held_out_windows(tokenizer, baseline.prefix, 24, 256)
    ids = windows.ids[:, :-1]
    exact = log_probabilities(baseline.engine, ids)
    lost: dict[str, float] = {}
    print(f"KL in nats a token on {windows.name}")
    for text in SETTINGS:
        notes: list[str] = []
        deployment = deployed(notes)
        parse(text).apply(deployment)
        found = log_probabilities(deployment.engine, ids)
        lost[text] = float((exact.exp() * (exact - found)).sum(-1).mean())
        print(f"{text}: {lost[text]:.6f}; {notes[-1]}", flush=True)
    static = lost["w8a8:mode=static,smooth=0.8"] / lost["w8a8:mode=static"]
    split = lost["llm-int8"] / lost["w8a8"]
    print(
        f"On pycode SmoothQuant (alpha 0.8) leaves {static:.2f} of the KL that static W8A8 loses,"
        f" and LLM.int8() loses {split:.2f} of what dynamic W8A8 loses."
    )
    return 0 if static <= 0.5 and split < 1 else 1
