"""The int8 product against torch's bf16 linear, our bf16 kernel and torch's int8 product.

    python -m tests.evidence int8 [--threads 2] [--quick]

Weights come from memory: copies of 160 MB together are used in turn. Each time is the best of as
many calls as fit a quarter of a second, the contenders by turns. The last line is the figure; exit
1 when it is missed: 0.8 times torch's bf16 linear or more at every shape and 32 rows or more, and
1.2 times our bf16 kernel in the geometric mean at one row.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch

from kernels.linear_dense import prepare
from kernels.linear_w8a8 import W8A8Weight, quantize

SHAPES = [(1536, 576), (576, 1536), (2048, 2048), (4096, 4096), (14336, 4096), (4096, 14336)]
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 512]
MEMORY, MOST_COPIES = 160e6, 180
SECONDS = 0.25


def best(contenders: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The best time of each, in seconds, over turns of all."""
    found = dict.fromkeys(contenders, math.inf)
    end = time.perf_counter() + seconds * len(contenders)
    while time.perf_counter() < end:
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            found[name] = min(found[name], time.perf_counter() - began)
    return found


def in_turn(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """Calls one after the other, the next one each time."""
    position = 0

    def run() -> object:
        nonlocal position
        position = (position + 1) % len(calls)
        return calls[position]()

    return run


def measure(n: int, k: int, rows: int, seconds: float) -> dict[str, float]:
    """Best seconds of each contender for x [rows, k] and a weight [n, k]."""
    copies = max(2, min(MOST_COPIES, int(MEMORY // (n * k))))
    forms = [quantize(torch.randn(n, k)) for _ in range(2)]
    ours = [W8A8Weight(forms[i % 2]) for i in range(copies)]
    halves = [torch.randn(n, k).bfloat16() for _ in range(max(2, copies // 2))]
    x, out = torch.randn(rows, k).bfloat16(), torch.empty(rows, n).bfloat16()
    codes = torch.randint(-127, 128, (rows, k), dtype=torch.int8)
    contenders = {
        "w8a8": in_turn([one.bind(x, out) for one in ours]),
        "torch bf16": in_turn([lambda w=w: torch.nn.functional.linear(x, w) for w in halves]),
    }
    if rows <= 16:
        # Half a round ahead, so that no one finds in the cache what the other has just read.
        middle = len(halves) // 2
        ahead = halves[middle:] + halves[:middle]
        contenders["gemv-bf16"] = in_turn([prepare(w).bind(x, out) for w in ahead])
    else:
        contenders["_int_mm alone"] = in_turn(
            [lambda w=form.codes: torch._int_mm(codes, w.t()) for form in forms]
        )
    return best(contenders, seconds)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two shapes, a fifth of the time")


def main(options: argparse.Namespace) -> int:
    """Print the table and the figure."""
    threads, quick = options.threads, options.quick
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shapes = SHAPES[:2] if quick else SHAPES
    lowest, singles = (math.inf, ""), []
    print("N x K, rows: best us, GB/s of int8 weights, TOP/s; ratio to the others")
    for n, k in shapes:
        for rows in ROWS:
            found = measure(n, k, rows, SECONDS / 5 if quick else SECONDS)
            mine = found.pop("w8a8")
            ratios = {name: seconds / mine for name, seconds in found.items()}
            said = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            print(
                f"{n} x {k}, {rows}: {mine * 1e6:.1f} us, {n * k / mine / 1e9:.1f} GB/s,"
                f" {2 * n * k * rows / mine / 1e12:.2f} TOP/s; {said}",
                flush=True,
            )
            if rows >= 32:
                lowest = min(lowest, (ratios["torch bf16"], f"{n} x {k} and {rows} rows"))
            if rows == 1:
                singles.append(ratios["gemv-bf16"])
    mean = math.exp(sum(map(math.log, singles)) / len(singles))
    print(
        f"With {threads} threads and 32 rows or more the int8 product is at least {lowest[0]:.2f}"
        f" times as fast as torch's bf16 linear (at {lowest[1]}), and {mean:.2f} times our own bf16"
        " kernel at one row (geometric mean)."
    )
    return 0 if lowest[0] >= 0.8 and mean >= 1.2 else 1
