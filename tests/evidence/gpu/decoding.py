"""Greedy decoding at batch 1, as long as it is asked for: the work of the parts that time a step or
read its energy.
"""

from __future__ import annotations

import time
from typing import Any

from core import techniques
from core.catalogue import models, workloads
from core.machine.targets import detect_local
from core.measure.energy.nvml import CountedReader, Nvml
from core.measure.energy.reader import UPDATES
from core.plan import Case
from tests.evidence.gpu.place import Place

PROMPT, TOKENS = 128, 128
MODEL = {"cuda": "shape:llama-3.1-8b", "cpu": "pycode-small"}
TECHNIQUE = "weight-int4"
# Of a span: the least that is looked at, and how many make an interval.
SPAN_S = {"cuda": 1.0, "cpu": 0.1}
SPANS = 8


class Decoding:
    """An engine behind a prompt of random ids, at batch 1."""

    def __init__(self, engine: Any) -> None:
        import torch

        self.engine = engine
        random = torch.Generator().manual_seed(0)
        prompt = torch.randint(0, engine.vocab_size, (1, PROMPT), generator=random)
        self._cache = engine.new_cache(1, PROMPT + TOKENS)
        self._first = engine.forward(prompt, self._cache, last_only=True).argmax(-1)

    def run(self) -> tuple[float, Any]:
        """Seconds of TOKENS steps behind the prompt, and the chosen ids int64 [1, TOKENS]."""
        import torch

        self._cache.truncate(PROMPT)
        ids, chosen = self._first.clone(), []
        wait(self.engine.device)
        began = time.perf_counter()
        for _ in range(TOKENS):
            ids = self.engine.choose(ids, self._cache, last_only=True)
            chosen.append(ids.clone())
        wait(self.engine.device)
        return time.perf_counter() - began, torch.cat(chosen, dim=1)


def joules(place: Place, nvml: Nvml, idle_w: float) -> dict[str, Any]:
    """Spans of decoding in 4 bit with their joules by the counter: `joules_a_token` has one value a
    span, what the card draws when idle taken off.
    """
    import torch

    reader = CountedReader(nvml)
    reader.watch()
    span_s = max(SPAN_S[place.device], 0.0 if place.rehearsal else UPDATES * reader.resolution_s)
    spans: list[dict[str, float]] = []
    with torch.inference_mode():
        decoding = Decoding(in_4_bit(place.device))
        decoding.run()
        while len(spans) < SPANS and place.left > span_s + 1:
            tokens, began = 0, time.perf_counter()
            reader.start()
            while time.perf_counter() - began < span_s:
                decoding.run()
                tokens += TOKENS
            lap = reader.lap()
            spans.append({"tokens": tokens, "joules": lap.total, "seconds": lap.seconds})
    return {
        "model": MODEL[place.device],
        "technique": TECHNIQUE,
        "resolution_s": reader.resolution_s,
        "idle_w": idle_w,
        "spans": spans,
        "joules_a_token": [
            (span["joules"] - idle_w * span["seconds"]) / span["tokens"] for span in spans
        ],
    }


def in_4_bit(device: str) -> Any:
    """The engine of MODEL with TECHNIQUE applied."""
    from core.engine.load.load import load_engine
    from core.techniques.deployment import Deployment

    model = models.resolve(MODEL[device])
    case = Case(model, detect_local(), workloads.resolve("chat"))
    engine = load_engine(model, device=device)
    deployment = Deployment(case, engine, lambda: engine, device=device)
    techniques.parse(TECHNIQUE).apply(deployment)
    return deployment.engine


def wait(device: str) -> None:
    """Until the device has done what it was asked for."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
