"""Times every kernel against every alternative for the same work, in one run.

Owns: interleaved timing, medians with intervals, the table. What is timed comes from the case files
(bench_linear.py, bench_blocks.py). A kernel that does not agree with its fp64 reference on odd
shapes first gets no speed-up, only the sentence why. `python -m kernels.bench [--op OP] [--json]`.

Times are microseconds per call, median of interleaved repeats with a 95 % interval (order
statistics). A speed-up is the median over repeats of baseline time / kernel time. Bytes count
weights, input and output once; the share is that of the bandwidth of a large copy in this run.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from kernels import registry
from kernels.bench_case import Case, name_of, runnable

LINEAR = ("linear_dense", "linear_w8", "linear_w4")
BLOCKS = ("attention", "rms_norm", "swiglu")
REPEATS = 9
SAMPLE_SECONDS = 0.004
CASE_SECONDS = 0.8
COPY_BYTES = 64 << 20


def run_bench(op: str | None = None) -> list[dict[str, object]]:
    """Check, then time, the kernels of one operation or of all; one row per kernel and shape.

    Row: op, shape, rows, kernel, us, us_low, us_high, gb_per_s, copy_share, baseline, speedup,
    speedup_low, speedup_high (None when `refused` holds a sentence), refused.
    Raises ValueError for an operation that has no benchmark.
    """
    return list(rows_of_bench(op))


def rows_of_bench(op: str | None = None) -> Iterator[dict[str, object]]:
    """The rows of run_bench as soon as each case is done."""
    import torch

    if op is not None and op not in (*LINEAR, *BLOCKS):
        known = ", ".join((*LINEAR, *BLOCKS))
        raise ValueError(f"There is no benchmark of {op!r}; --op takes one of {known}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        for each in (op,) if op else (*LINEAR, *BLOCKS):
            refused, cases = _of(each, device)
            for case in cases:
                yield from _time(case, refused, lambda: target.copy_(source), wait)


def _of(op: str, device: str) -> tuple[dict[str, str], Iterator[Case]]:
    """The sentences of kernels that failed their check, and the cases of an operation."""
    if op in LINEAR:
        from kernels import bench_linear as module
    else:
        from kernels import bench_blocks as module  # type: ignore[no-redef]
    import torch

    torch.manual_seed(0)
    infos = runnable(op, device)
    if op in LINEAR[1:]:
        infos += runnable("linear_dense", device)
    found = {name_of(info): module.check(info, device) for info in infos}
    return {name: reason for name, reason in found.items() if reason}, module.cases(op, device)


def _time(
    case: Case, refused: dict[str, str], copy: Callable[[], object], wait: Callable[[], object]
) -> Iterator[dict[str, object]]:
    calls = {one.kernel: one.call for one in case.contenders} | {"copy": copy}
    loops = {}
    for name, call in calls.items():
        _sample(call, 1, wait)
        once = min(_sample(call, 1, wait) for _ in range(3))
        loops[name] = max(1, math.ceil(SAMPLE_SECONDS / max(once, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    # Five repeats at least, whatever they take; more only while there is time.
    for repeat in range(REPEATS):
        if repeat >= 5 and time.perf_counter() - started > CASE_SECONDS:
            break
        for name, call in calls.items():
            samples[name].append(_sample(call, loops[name], wait))
    copied = 2 * COPY_BYTES / statistics.median(samples["copy"])
    for one in case.contenders:
        middle, low, high = interval(samples[one.kernel])
        row: dict[str, object] = {
            "op": case.op,
            "shape": case.shape,
            "rows": case.rows,
            "kernel": one.kernel,
            "us": middle * 1e6,
            "us_low": low * 1e6,
            "us_high": high * 1e6,
            "gb_per_s": one.bytes / middle / 1e9,
            "copy_share": one.bytes / middle / copied,
            "baseline": case.baseline,
            "speedup": None,
            "speedup_low": None,
            "speedup_high": None,
            "refused": refused.get(one.kernel) or refused.get(case.baseline),
        }
        if row["refused"] is None:
            pairs = zip(samples[case.baseline], samples[one.kernel], strict=True)
            ratio = interval([base / own for base, own in pairs])
            row["speedup"], row["speedup_low"], row["speedup_high"] = ratio
        yield row


def interval(samples: list[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval from order statistics; with under six samples, their range."""
    ordered = sorted(samples)
    n = len(ordered)
    low, below = 0, 0.0
    # The largest rank that still leaves at most 2.5 % on each side (binomial with p = 1/2).
    while below + math.comb(n, low) / 2**n <= 0.025:
        below += math.comb(n, low) / 2**n
        low += 1
    low = max(0, low - 1)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def _sample(call: Callable[[], object], loops: int, wait: Callable[[], object]) -> float:
    wait()
    started = time.perf_counter()
    for _ in range(loops):
        call()
    wait()
    return (time.perf_counter() - started) / loops


def _nothing() -> None:
    return None


def line(row: dict[str, object]) -> str:
    """One row of the table for people."""
    numbers = (
        f"{row['op']:<13} {row['shape']:>16} {row['rows']:>5}  {row['kernel']:<26}"
        f" {row['us']:>9.1f} us {row['gb_per_s']:>7.1f} GB/s {row['copy_share']:>5.0%} of copy"
    )
    if row["refused"]:
        return f"{numbers}  no speed-up: {row['refused']}"
    return (
        f"{numbers}  {row['speedup']:.2f}x [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
        f" of {row['baseline']}"
    )


def main(op: str | None = None, as_json: bool = False) -> int:
    """Run and print: a table line by line as it comes, or one JSON document.

    Returns 0; 1 when a kernel failed its check; 2, with a sentence on stderr, for an unknown `op`.
    """
    rows = []
    try:
        for row in rows_of_bench(op):
            rows.append(row)
            if not as_json:
                print(line(row), flush=True)
    except (ValueError, registry.KernelUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps({"rows": rows}, indent=1))
    return 1 if any(row["refused"] for row in rows) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description="Time kernels.")
    parser.add_argument("--op", help="only this operation")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    sys.exit(main(options.op, options.json))
