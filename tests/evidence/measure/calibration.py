"""How long a calibration takes, and whether its limits are limits: no kernel of ours may read
faster than the reading bandwidth that it measured.

    python -m tests.evidence calibration [--count N]

Needs a quiet machine. N is how often each kernel runs.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time

from tests.evidence import ROOT

LIMIT_S = 60.0
# The same loop differs by so much from run to run.
TOLERANCE = 1.10
SHAPES = ((2048, 2048), (4096, 4096), (8192, 4096), (16384, 8192))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=40)


def main(options: argparse.Namespace) -> int:
    """Measure, compare, print the figure; 1 when it is missed."""
    count = options.count
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "core.machine.calibration"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    took = time.perf_counter() - began

    import torch

    from core.machine import calibrate
    from core.machine.environment import environment
    from kernels.linear_dense import prepare

    known = calibrate.stored(environment()[0])
    assert known is not None, "the child stored nothing"
    shares = []
    for rows, columns in SHAPES:
        weight = torch.randn(rows, columns).bfloat16()
        layer, x = prepare(weight), torch.randn(1, columns).bfloat16()
        best = math.inf
        for _ in range(count):
            start = time.perf_counter()
            layer(x)
            best = min(best, time.perf_counter() - start)
        limit = known.read_bandwidth(weight.nbytes)
        assert limit is not None
        shares.append(weight.nbytes / best / limit)
        print(
            f"{layer.kernel} over {weight.nbytes / 2**20:.0f} MiB:"
            f" {weight.nbytes / best / 1e9:.1f} GB/s, {shares[-1]:.0%} of {limit / 1e9:.1f} GB/s"
        )
    memory = known.memory_bandwidth() or 0.0
    others = "unknown" if known.others_cores is None else f"{known.others_cores:.1f}"
    held = took < LIMIT_S and max(shares) < TOLERANCE
    print(
        f"A calibration took {took:.0f} s (limit {LIMIT_S:.0f} s), found {memory / 1e9:.1f} GB/s of"
        f" reading and {len(known.peaks)} matrix peaks while others took {others} cores, and our"
        f" kernel reached {min(shares):.0%} to {max(shares):.0%} of its reading bandwidth (at most"
        f" {TOLERANCE:.0%}): {'held' if held else 'missed'}."
    )
    return 0 if held else 1
