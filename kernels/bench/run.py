"""Times every kernel against every alternative for the same work, in one run.

Owns the command line and the choice of cases, which are linear.py's and blocks.py's; timing.py
times them, report.py prints. A kernel that does not agree with its fp64 reference on odd shapes
gets no speed-up, only the sentence why.

    python -m kernels.bench.run [--op OP] [--format F ...] [--shape NxK ...] [--rows M ...] [--full]
                            [--json | --markdown]

By default a part of the grid, 80 cases: about 8 minutes of a processor's time, more on a busy
machine; `--full` is all of it, 936 cases in hours. The last line on stderr says how long it took.
Times are microseconds per call, median of interleaved repeats with a 95 % interval (order
statistics). A speed-up is the median over repeats of one's time / the other's. Bytes count weights,
input and output once; shares are those of a large copy, a large read and a large matrix product,
measured in this run.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from kernels import registry
from kernels.bench import report as bench_report
from kernels.bench.case import Row

BLOCKS = ("attention", "rms_norm", "swiglu")
OPS = ("linear_dense", "linear_lowbit", "linear_w8a8", "linear_fp8", *BLOCKS)
Progress = Callable[[str], object]


def run_bench(op: str | None = None, **choice: Any) -> list[Row]:
    """Check, then time, the kernels of one operation or of all; one row per kernel and case.

    Row: op, format, shape, rows, kernel, own, us, us_low, us_high, samples_us, gb_per_s,
    copy_share, read_share, peak_share, baseline, speedup, speedup_low, speedup_high (None when
    `refused` holds a sentence), refused; rows of ours also best_other, versus_best,
    versus_best_low, versus_best_high. A contender that is not here has `absent`, a sentence, and no
    numbers. Raises ValueError for an operation that has no benchmark.
    """
    return list(rows_of_bench(op, **choice))


def rows_of_bench(
    op: str | None = None,
    full: bool = False,
    formats: tuple[str, ...] = (),
    shapes: tuple[tuple[int, int], ...] = (),
    rows: tuple[int, ...] = (),
    progress: Progress = lambda text: None,
) -> Iterator[Row]:
    """The rows of run_bench as soon as each case is done."""
    import torch

    from kernels.bench import limits as bench_limits
    from kernels.bench import linear as bench_linear
    from kernels.bench import timing

    if op is not None and op not in OPS:
        raise ValueError(f"There is no benchmark of {op!r}; --op takes one of {', '.join(OPS)}.")
    for format_ in formats:
        if format_ not in bench_linear.FORMATS:
            known = ", ".join(bench_linear.FORMATS)
            raise ValueError(f"There is no format {format_!r}; --format takes {known}.")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    progress("measuring the machine")
    peaks = bench_limits.peaks(device)
    streams = bench_limits.streams(device)
    wait = bench_limits.wait_for(device)
    of_op = bench_linear.FORMATS if op is None else bench_linear.OPS.get(op, ())
    grid = bench_linear.ShapeGrid(
        formats_of(of_op, formats, full or op is not None),
        shapes or (bench_linear.SHAPES if full else bench_linear.QUICK_SHAPES),
        rows or (bench_linear.ROWS if full else bench_linear.QUICK_ROWS),
    )
    done, began = 0, time.perf_counter()
    with torch.inference_mode():
        for case in bench_linear.cases(grid, device):
            done += 1
            spent = time.perf_counter() - began
            progress(
                f"{done} of {grid.count()}: {case.format} {case.shape}, {case.rows} rows; "
                f"{spent:.0f} s so far"
            )
            # With no kernel of ours there is nothing to compare.
            if any(contender.own for contender in case.contenders):
                yield from timing.time_case(case, streams, peaks, wait)
        for each in BLOCKS if op is None and not formats else (op,) if op in BLOCKS else ():
            from kernels.bench import blocks as bench_blocks

            progress(each)
            for case in bench_blocks.cases(each, device):
                yield from timing.time_case(case, streams, peaks, wait)


def formats_of(of_op: tuple[str, ...], wanted: tuple[str, ...], every: bool) -> tuple[str, ...]:
    """The formats to time: those asked for, else every one, else those that matter most."""
    from kernels.bench import linear as bench_linear

    if wanted:
        return tuple(format_ for format_ in of_op if format_ in wanted)
    return tuple(format_ for format_ in of_op if every or format_ in bench_linear.QUICK_FORMATS)


def main(
    op: str | None = None, as_json: bool = False, markdown: bool = False, **choice: Any
) -> int:
    """Run and print: a table line by line as it comes, one JSON document, or a Markdown table.

    Returns 0; 1 when a kernel of ours failed its check; 2, with a sentence on stderr, for an
    unknown `op` or format. Progress goes to stderr.
    """
    rows, began = [], time.perf_counter()
    try:
        for row in rows_of_bench(op, progress=_say, **choice):
            rows.append(row)
            if not as_json and not markdown and "absent" not in row:
                print(bench_report.line(row), flush=True)
    except (ValueError, registry.KernelUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    _say(f"took {time.perf_counter() - began:.0f} s")
    summary = bench_report.summary(rows)
    if as_json:
        print(json.dumps({"machine": bench_report.machine(), "summary": summary, "rows": rows}))
    elif markdown:
        print("\n".join(bench_report.markdown(summary)))
    else:
        print("\n".join(bench_report.sentences(summary, rows)))
    return 1 if any(row["own"] and row["refused"] for row in rows) else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `trimtab bench kernels` and this module take, beside --json."""
    parser.add_argument("--op", help=f"only this operation: {', '.join(OPS)}")
    parser.add_argument("--format", nargs="+", default=[], help="only these, as int4-g32 w8a8")
    parser.add_argument("--shape", nargs="+", default=[], help="N x K written as 4096x4096")
    parser.add_argument("--rows", nargs="+", default=[], help="rows of x, as 1 8")
    parser.add_argument("--full", action="store_true", help="every shape and number of rows")
    parser.add_argument("--markdown", action="store_true", help="the table of the README")


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of main. Raises ValueError with one sentence."""
    shapes = []
    for text in options.shape:
        sides = text.lower().split("x")
        if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
            raise ValueError(f"--shape: {text!r} is not N x K; write for example 4096x4096.")
        shapes.append((int(sides[0]), int(sides[1])))
    for text in options.rows:
        if not text.isdigit() or not int(text):
            raise ValueError(f"--rows: {text!r} is no number of rows.")
    return {
        "op": options.op,
        "markdown": options.markdown,
        "full": options.full,
        "formats": tuple(options.format),
        "shapes": tuple(shapes),
        "rows": tuple(int(text) for text in options.rows),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m kernels.bench.run", description="Time kernels."
    )
    arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    try:
        choice = chosen(options)
    except ValueError as error:
        parser.error(str(error))
    sys.exit(main(as_json=options.json, **choice))
