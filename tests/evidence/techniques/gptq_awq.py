"""Do GPTQ and AWQ win? KL to the unchanged model on held-out text, by bits, group and method.

    python -m tests.evidence gptq-awq                      3 and 4 bit, every format
    python -m tests.evidence gptq-awq --bits 4 --groups 32 --windows 8
    python -m tests.evidence gptq-awq --bits 2 8           is neither ever worse?

Every method is applied to freshly loaded weights as a trial applies it, and compared with rounding
to nearest in the same format. The better of GPTQ and AWQ (or both together) may lose at most half
of what rounding to nearest loses at 4 bit and 40 % at 3 bit, in every format; neither may lose more
than it anywhere (at 8 bit, where all differ from the unchanged model by less than its own 16-bit
rounding does, beyond the interval of the difference). Prints a table, and the figure last; exit 1
when it is missed.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

from core.catalogue import models, workloads
from core.data.passages import Windows, held_out_windows
from core.engine.load.load import load_engine, load_tokenizer
from core.machine import targets
from core.measure.quality.text import text_quality
from core.plan import Case, Technique
from core.techniques import build
from core.techniques.deployment import Deployment

MOST = {4: 0.5, 3: 0.4}
METHODS = ("rtn", "gptq", "awq", "awq+gptq")


def technique(method: str, bits: int, group: int, symmetric: int) -> Technique:
    """The method at its defaults in one format."""
    settings = {"bits": bits, "group_size": group, "symmetric": symmetric}
    if method == "awq+gptq":
        return build("awq", {**settings, "then": "gptq"})
    return build(method, settings)


def losses(case: Case, text: Windows, chosen: Technique) -> tuple[np.ndarray, float]:
    """(KL in nats per token of each window, seconds of preparing)."""
    deployment = Deployment(case, load_engine(case.model), lambda: None, load_tokenizer(case.model))
    began = time.perf_counter()
    chosen.apply(deployment)
    seconds = time.perf_counter() - began
    found = text_quality(deployment.engine, load_engine(case.model), text)
    samples = next(one.samples for one in found if one.metric == "kl_nats")
    return np.array(samples), seconds


def worse(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the mean difference of the windows lies above zero by more than two standard errors,
    so that noise at the limit of 16-bit arithmetic is not called a loss.
    """
    gap = ours - theirs
    return bool(gap.mean() > 2 * gap.std(ddof=1) / np.sqrt(len(gap)))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="pycode")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--groups", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--symmetric", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--length", type=int, default=512)


def main(options: argparse.Namespace) -> int:
    """Print the table; 0 when the figure is reached."""
    case = Case(
        models.resolve(options.model), targets.resolve("local"), workloads.resolve("autocomplete")
    )
    tokenizer = load_tokenizer(case.model)
    start = Deployment(case, load_engine(case.model), lambda: None).prefix
    text = held_out_windows(tokenizer, start, options.windows, options.length)
    print(f"{options.model}, {text.name}: KL in nats per token, and its share of rtn's")
    print(f"{'format':>18} " + "".join(f"{name:>22}" for name in METHODS))
    most: dict[int, float] = {}
    lost = []
    for bits, group, symmetric in itertools.product(
        options.bits, options.groups, options.symmetric
    ):
        found = {
            name: losses(case, text, technique(name, bits, group, symmetric)) for name in METHODS
        }
        base = found["rtn"][0].mean()
        name = f"int{bits}-g{group} {'symmetric' if symmetric else 'affine'}"
        cells = (f"{kl.mean():.5f} {kl.mean() / base:5.0%} {s:4.0f} s" for kl, s in found.values())
        print(f"{name:>18} " + "".join(f"{cell:>22}" for cell in cells), flush=True)
        share = min(found[one][0].mean() for one in METHODS[1:]) / base
        most[bits] = max(most.get(bits, 0.0), share)
        lost += [f"{one} at {name}" for one in METHODS[1:] if worse(found[one][0], found["rtn"][0])]
    reached = not lost and all(most[bits] <= MOST.get(bits, 1.0) for bits in most)
    shares = ", ".join(
        f"{share:.0%} of round-to-nearest's loss at {bits} bit (at most {MOST.get(bits, 1):.0%})"
        for bits, share in most.items()
    )
    behind = f"worse than round-to-nearest: {', '.join(lost)}" if lost else "neither is ever worse"
    word = "reached" if reached else "MISSED"
    print(f"The better of GPTQ and AWQ loses in its worst format {shares}; {behind}: {word}")
    return 0 if reached else 1
