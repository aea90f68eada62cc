"""What does the server cost? Decoding through Server.step() against a plain loop over the model.

    python -m tests.evidence server                          the loop in this process
    python -m tests.evidence server --against FOLDER         generate() of another checkout
    python -m tests.evidence server --against FOLDER --draft    its speculation, batch 1

Rounds of a short prompt and 64 tokens take turns, for pycode and pycode-small in batches of 1, 4
and 8. With a folder each side is a process of its own and they take turns as well. Prints by how
much the server's rounds are longer, with the 95 % interval; exit 1 when the interval of a batch of
1 lies above 1 %, or that of a larger one above 0. With --threads 1 the ratios scatter less on a
busy machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from core.measure.timing import alternate
from core.statistics.interleave import ratio_interval
from tests.evidence import ROOT

PROMPT, TOKENS = 8, 64
MOST = {1: 0.01}
# Runs in either checkout: times one round for each line that it reads.
CHILD = f"""
import sys, time, torch
from core.catalogue import models
from core.engine.load.load import load_engine
from core.engine.serve.generate import generate
name, batch, threads, draft = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
if threads:
    torch.set_num_threads(threads)
engine = load_engine(models.resolve(name))
prompt = torch.randint(1, 4096, (batch, {PROMPT}), generator=torch.Generator().manual_seed(0))
run = lambda: generate(engine, prompt, {TOKENS})
if draft:
    small = load_engine(models.resolve("pycode-small"))
    try:
        from core.engine.serve.proposer import Draft
        run = lambda: generate(engine, prompt, {TOKENS}, proposer=Draft(small, 3))
    except ImportError:
        from core.engine.serve.speculate import speculate
        run = lambda: speculate(engine, small, prompt, {TOKENS}, 3)
for _ in sys.stdin:
    began = time.perf_counter()
    run()
    print(time.perf_counter() - began, flush=True)
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the figure."""
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--against", default="", help="folder of another checkout")
    parser.add_argument("--draft", action="store_true")
    parser.add_argument("--models", nargs="*", default=["pycode", "pycode-small"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 4, 8])


def main(given: argparse.Namespace) -> int:
    """Compare; 0 when no interval lies above its bound."""
    reached = True
    for name in ["pycode"] if given.draft else given.models:
        for batch in [1] if given.draft else given.batches:
            pairs = _apart(name, batch, given) if given.against else _here(name, batch, given)
            ours, theirs = zip(*pairs[10:], strict=True)
            interval = ratio_interval(ours, theirs)
            assert interval is not None
            ratio, low, high = (value - 1 for value in interval)
            most = MOST.get(batch, 0.0)
            reached &= low < most
            print(
                f"{name}, batch {batch}: the server takes {ratio:+.2%} (95 % interval {low:+.2%} to"
                f" {high:+.2%}, {len(ours)} pairs of {1e3 * sorted(theirs)[len(ours) // 2]:.1f} ms)"
            )
    word = "reached" if reached else "MISSED"
    print(f"at most 1 % longer at batch 1, not longer in larger batches: {word}")
    return 0 if reached else 1


def _here(name: str, batch: int, given: argparse.Namespace) -> list[tuple[float, float]]:
    import torch

    from core.catalogue import models
    from core.engine.load.load import load_engine
    from core.engine.serve.scheduler import Static
    from core.engine.serve.sequence import Request
    from core.engine.serve.server import EngineServer

    if given.threads:
        torch.set_num_threads(given.threads)
    engine = load_engine(models.resolve(name))
    stream = torch.Generator().manual_seed(0)
    prompt = torch.randint(1, engine.vocab_size, (batch, PROMPT), generator=stream)
    server = EngineServer(engine, Static(batch))

    requests = [Request(row, TOKENS) for row in prompt]

    def served() -> list[list[int]]:
        sequences = [server.submit(request) for request in requests]
        with torch.inference_mode():
            while server.phase:
                server.step()
        return [one.new for one in sequences]

    if served() != loop(engine, prompt, TOKENS):
        raise SystemExit(f"{name}, batch {batch}: the server and the loop say different tokens")
    return _turns(
        lambda: _timed(served), lambda: _timed(lambda: loop(engine, prompt, TOKENS)), given.rounds
    )


def loop(engine: Any, prompt: Any, tokens: int) -> list[list[int]]:
    """The least that decoding a batch in step takes, with a time stamp for every step."""
    import torch

    with torch.inference_mode():
        ids, new, stamps = prompt, [], []
        cache = engine.new_cache(len(prompt), prompt.shape[1] + tokens)
        for _ in range(tokens):
            token = engine.forward(ids, cache, last_only=True)[:, -1].argmax(-1).cpu()
            stamps.append(time.perf_counter())
            new.append(token)
            ids = token[:, None]
        rows: list[list[int]] = torch.stack(new, dim=1).tolist()
        return rows


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _turns(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> list[tuple[float, float]]:
    pairs = alternate(ours, theirs, rounds, 0.0, lambda share: None)
    return [(first, second) for first, second in pairs if second is not None]


def _apart(name: str, batch: int, given: argparse.Namespace) -> list[tuple[float, float]]:
    words = [name, str(batch), str(given.threads), str(int(given.draft))]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
        for folder in (ROOT, given.against)
    ]

    def ask(child: subprocess.Popen[str]) -> float:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        return float(child.stdout.readline())

    try:
        return _turns(lambda: ask(children[0]), lambda: ask(children[1]), given.rounds)
    finally:
        for child in children:
            child.kill()
            child.wait()
