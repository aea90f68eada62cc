"""A decode step captured as a CUDA graph, the same kernels called one after another, and torch's
own operations: seconds a token at batch 1, and whether all three choose the same tokens.

A processor captures nothing: a rehearsal times the plain step alone.
"""

from __future__ import annotations

import statistics
import traceback
from typing import Any

from tests.evidence.gpu import results
from tests.evidence.gpu.decoding import TOKENS, Decoding
from tests.evidence.gpu.place import Place

MODELS = {"cuda": ("pycode", "shape:qwen2.5-0.5b"), "cpu": ("pycode-small",)}
REPEATS = 5


def run(place: Place) -> tuple[bool, str]:
    """Write `graph` in steps.json; content when every model's step was captured, and no slower than
    its eager one.
    """
    import torch

    data: dict[str, Any] = {}
    told, good = [], True
    for name in MODELS[place.device]:
        if place.left < 3:
            told.append(f"{name}: no time")
            good = False
            continue
        try:
            with torch.inference_mode():
                data[name] = measured(name, place.device)
        except Exception as error:
            # What breaks one model is a finding; the other is worth its time all the same.
            traceback.print_exc()
            data[name] = {"failed": f"{type(error).__name__}: {error}"[:400]}
        results.add_json(place, "steps.json", "graph", data)
        told.append(f"{name} {_said(data[name])}")
        good = good and _content(data[name], place.rehearsal)
    return good, "; ".join(told)


def measured(name: str, device: str) -> dict[str, Any]:
    """Each way of one model: seconds a token of REPEATS runs, and the tokens of the last."""
    from core.engine.load.load import load_engine

    engine = load_engine(name, device=device)
    graphs = engine.graphs
    ways = {"captured": graphs, "eager": None if graphs is None else eager(device), "plain": None}
    if graphs is None:
        ways = {"plain": None}
    data: dict[str, Any] = {}
    chosen: dict[str, list[int]] = {}
    for way, how in ways.items():
        engine.graphs = how
        data[way], chosen[way] = timed(engine)
    reasons = [] if graphs is None else list(graphs.reasons)
    return {"seconds_a_token": data, "same_tokens": _same(chosen), "not_captured": reasons}


def eager(device: str) -> Any:
    """What runs the bound kernels without capturing them."""
    from core.engine.passes.graph import Graphs, Run

    class Eager(Graphs):
        """Every run as it is."""

        def __call__(self, run: Run) -> Run:
            return run

    return Eager(device)


def timed(engine: Any) -> tuple[list[float], list[int]]:
    """Seconds a token of each run of TOKENS steps, and the ids of the last."""
    decoding = Decoding(engine)
    samples, chosen = [], None
    for _ in range(REPEATS + 1):
        seconds, chosen = decoding.run()
        samples.append(seconds / TOKENS)
    assert chosen is not None
    # The first run compiles and captures.
    return samples[1:], chosen.flatten().tolist()


def _same(chosen: dict[str, list[int]]) -> float:
    """The share of positions up to the first at which two ways choose differently."""
    for position, ids in enumerate(zip(*chosen.values(), strict=True)):
        if len(set(ids)) > 1:
            return position / TOKENS
    return 1.0


def _medians(data: dict[str, Any]) -> dict[str, float]:
    return {way: statistics.median(taken) for way, taken in data["seconds_a_token"].items()}


def _content(data: dict[str, Any], rehearsal: bool) -> bool:
    return "failed" not in data if rehearsal else _captured(data)


def _captured(data: dict[str, Any]) -> bool:
    if "failed" in data:
        return False
    medians = _medians(data)
    return not data["not_captured"] and medians["captured"] <= medians["eager"]


def _said(data: dict[str, Any]) -> str:
    if "failed" in data:
        return str(data["failed"])
    told = ", ".join(f"{way} {taken * 1e6:,.0f} us" for way, taken in _medians(data).items())
    if data["not_captured"]:
        told += f" ({data['not_captured'][0]})"
    return f"{told}, same tokens {data['same_tokens']:.0%}"
