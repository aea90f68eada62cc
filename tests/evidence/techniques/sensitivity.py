"""How well the cheap sensitivity ranks matrices and precisions, against trying each, and whether
the automatic mix beats one precision for all. Prints its figure; exit 1 when it is missed.

    python -m tests.evidence sensitivity [--model MODEL] [--sequences 8]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from scipy.stats import spearmanr

from core import techniques
from core.catalogue import models, workloads
from core.data.passages import held_out_windows
from core.engine.load.load import load_engine, load_tokenizer
from core.machine import targets
from core.measure.quality.text import text_quality
from core.plan import Case
from core.techniques.deployment import Deployment
from core.techniques.quantize.auto_mixed import WIDTHS
from core.techniques.solve.calibration import CalibrationSet, calibration_ids
from core.techniques.solve.matrices import matrices
from core.techniques.solve.sensitivity import Judge, MatrixPlace, by_gradient, by_trying

WANTED = 0.8
GROUP = 32


def deployment(name: str) -> Deployment:
    model = models.resolve(name)
    local = replace(targets.resolve("h100-sxm"), id="local", kind="cpu", local=True)
    case = Case(model, local, workloads.resolve("chat"))
    return Deployment(
        case, load_engine(model), lambda: load_engine(model), tokenizer=load_tokenizer(name)
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="pycode-small")
    parser.add_argument("--sequences", type=int, default=8)


def main(options: argparse.Namespace) -> int:
    """Rank by both ways; 0 when they agree and the mix wins."""
    name, sequences = options.model, options.sequences
    torch.set_num_threads(1)
    one = deployment(name)
    found = matrices(one)
    ids = calibration_ids(one, CalibrationSet(samples=sequences))
    began = time.perf_counter()
    cheap = by_gradient(one, found, list(ids.split(1)), WIDTHS, GROUP, lambda share: None)
    quick = time.perf_counter() - began
    began = time.perf_counter()
    places = [MatrixPlace(matrix) for matrix in found]
    judge = Judge(one, list(ids.split(4)))
    tried = by_trying(judge, places, WIDTHS, GROUP, lambda share: None)
    slow = time.perf_counter() - began
    for bits in WIDTHS:
        keys = [key for key in tried if key[1] == bits]
        of_one = spearmanr([tried[key] for key in keys], [cheap[key] for key in keys]).statistic
        print(f"{bits} bit: Spearman {of_one:.3f} over {len(keys)} matrices")
    rank = float(spearmanr([tried[key] for key in tried], [cheap[key] for key in tried]).statistic)
    better = _mixes(name)
    print(
        f"On {name} the sensitivity by gradient ranks {len(tried)} pairs of matrix and precision "
        f"as trying each does with Spearman {rank:.3f} (wanted {WANTED}), in {quick:.1f} s against "
        f"{slow:.1f} s on {ids.numel():,} tokens; at the resident bytes of 3 bit for all the mix, "
        "which may leave a tied head to the embedding, loses "
        f"{better[0]:.4f} nats of KL on held-out text, 3 bit for all {better[1]:.4f}."
    )
    return 0 if rank >= WANTED and better[0] < better[1] else 1


def _mixes(name: str) -> tuple[float, float]:
    """KL on held-out text of the mix and of rtn at 3 bit, at the same resident bytes."""
    plain = deployment(name)
    windows = held_out_windows(plain.tokenizer, (0,), 16, 256)
    techniques.parse(f"rtn:bits=3,group_size={GROUP}").apply(plain)
    mixed = deployment(name)
    techniques.build("auto-mixed", {"max_mib": plain.engine.weight_bytes() / 2**20}).apply(mixed)
    baseline = load_engine(models.resolve(name))
    losses = []
    for one in (mixed, plain):
        measured = text_quality(one.engine, baseline, windows)
        losses += [float(row.value or 0.0) for row in measured if row.metric == "kl_nats"]
    return losses[0], losses[1]
