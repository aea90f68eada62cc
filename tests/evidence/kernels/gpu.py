"""The Triton kernels of packed codes on a GPU: bandwidth at few rows, bf16 matmul at many.

    python -m tests.evidence gpu [--quick]

NOT YET RUN ON A GPU. For 1 to 8 rows both kernels are timed, on the vector units ("few") and on the
matrix units ("many"): kernels/linear_lowbit/gpu's FEW_ROWS is the last number of rows at which
the first wins. Weights come from memory (copies in turn beyond the last cache), launches from one
captured graph, copy and matmul from the same run. Ends with one sentence; exit 1 when int4 in
groups reaches less than 80 % of the copy bandwidth at 1 to 8 rows, or less than 0.9 times bf16 from
64 rows on.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch

from kernels.bench.linear import WORKING_SET, form_of
from kernels.linear_lowbit import LowBitWeight

SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336), (8192, 2048))
FORMATS = ("int4-g32", "int4-g128", "int8", "nf4-g64", "int3-g64", "int2-g32")
FEW, MANY = (1, 2, 4, 8), (16, 32, 64, 128, 512)
REPEATS = 25


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="one shape, two formats")


def main(options: argparse.Namespace) -> int:
    """Print a line for each case and the sentence."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here; nothing was measured.")
        return 1
    bandwidth = copied()
    print(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e9:.0f} GB/s")
    shares, ratios, crossing = [], [], []
    for n, k in SHAPES[:1] if options.quick else SHAPES:
        for format_ in FORMATS[:2] if options.quick else FORMATS:
            for rows, times, size, dense in cases(format_, n, k):
                best = min(times.values())
                share, ratio = size / best / bandwidth, dense / best
                told = ", ".join(f"{name} {one * 1e6:.1f} us" for name, one in times.items())
                print(
                    f"{format_:<9} {n:>5} x {k:<5} M={rows:<3} {told}; {share:.0%} of copy, "
                    f"{ratio:.2f}x bf16",
                    flush=True,
                )
                if rows in FEW:
                    crossing.append((rows, times["few"] < times["many"]))
                if format_.startswith("int4"):
                    (shares if rows in FEW else ratios if rows >= 64 else []).append(
                        share if rows in FEW else ratio
                    )
    wins = [rows for rows in FEW if statistics.mean(won for m, won in crossing if m == rows) > 0.5]
    missed = min(shares) < 0.8 or min(ratios) < 0.9
    print(
        f"int4: {min(shares):.0%} of copy bandwidth at least at 1 to 8 rows (80 % wanted), "
        f"{min(ratios):.2f}x bf16 at least from 64 rows on (0.9 wanted); the kernel for few rows "
        f"wins at {', '.join(map(str, wins)) or 'no number of'} rows."
    )
    return int(missed)


def cases(format_: str, n: int, k: int) -> Iterator[tuple[int, dict[str, float], int, float]]:
    """(rows, {kernel: seconds}, bytes, seconds of bf16) for each number of rows."""
    form = form_of(format_, n, k, "cuda")
    first = LowBitWeight(form)
    size = sum(one.nbytes for one in first.tensors())
    weights = [first, *(LowBitWeight(form) for _ in range(-(-WORKING_SET["cuda"] // size)))]
    dense = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
    floats = [dense.clone() for _ in range(-(-WORKING_SET["cuda"] // dense.nbytes) + 1)]
    for rows in (*FEW, *MANY):
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        out = torch.empty(rows, n, device="cuda", dtype=torch.bfloat16)
        calls: dict[str, list[Callable[[], object]]] = {
            name: [partial(one._product.run, x, out, few=few) for one in weights]
            for name, few in (("few", True), ("many", False))
            if rows in FEW or not few
        }
        calls["bf16"] = [partial(torch.mm, x, one.T, out=out) for one in floats]
        times = timed(calls)
        dense_time = times.pop("bf16")
        yield rows, times, size + 2 * rows * (n + k), dense_time


def timed(calls: dict[str, list[Callable[[], object]]]) -> dict[str, float]:
    """Median seconds of one call, contenders in turn, each a captured graph of all its copies."""
    graphs = {}
    for name, steps in calls.items():
        for step in steps[:2]:
            step()
        torch.cuda.synchronize()
        graphs[name] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[name]):
            for step in steps:
                step()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            graph.replay()
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            samples[name].append(start.elapsed_time(end) / 1e3 / len(calls[name]))
    return {name: statistics.median(found) for name, found in samples.items()}


def copied() -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.ones(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = timed({"copy": [lambda: target.copy_(source)]})["copy"]
    return 2 * source.nbytes / seconds
