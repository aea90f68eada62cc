"""One case of the benchmark, timed: every contender in turns, and the rows that come of it.

A case's contenders are called by turns, so that what disturbs the machine meets all of them; a
ratio is the median over turns, with a 95 % interval from order statistics.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator

from kernels.bench.case import BenchCase, Row
from kernels.bench.limits import interval

# Six repeats are the fewest whose range is a 95 % interval.
LEAST_REPEATS = 6
REPEATS = 15
SAMPLE_SECONDS = 0.004
CASE_SECONDS = 1.0
# A pass longer than this needs no other before it to warm up.
LONG_SECONDS = 0.02


def time_case(
    case: BenchCase,
    streams: dict[str, tuple[int, Callable[[], object]]],
    peaks: dict[str, float],
    wait: Callable[[], object],
) -> Iterator[Row]:
    """A row for each contender of `case`; `streams` are copies and reads timed beside them, with
    the bytes that each moves, `peaks` FLOP/s of matrix products, and `wait` ends a device's work.
    """
    here = [contender for contender in case.contenders if contender.absent is None]
    calls = {contender.kernel: contender.call for contender in here}
    calls |= {kind: call for kind, (_, call) in streams.items()}
    times = {contender.kernel: contender.times for contender in here}
    loops = {}
    for name, call in calls.items():
        once = _sample(call, 1, wait)
        if once < LONG_SECONDS:
            once = min(_sample(call, 1, wait) for _ in range(2))
        loops[name] = max(1, math.ceil(SAMPLE_SECONDS / max(once, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for repeat in range(REPEATS):
        if repeat >= LEAST_REPEATS and time.perf_counter() - started > CASE_SECONDS:
            break
        for name, call in calls.items():
            if case.pause:
                time.sleep(case.pause)
            if not samples[name] or samples[name][-1] * times.get(name, 1) < LONG_SECONDS:
                call()
            samples[name].append(_sample(call, loops[name], wait) / times.get(name, 1))
    speeds = {
        kind: moved / statistics.median(samples[kind]) for kind, (moved, _) in streams.items()
    }
    refused = {contender.kernel: contender.wrong for contender in here}
    others = [
        contender.kernel for contender in here if not contender.own and contender.wrong is None
    ]
    best = min(others, key=lambda name: statistics.median(samples[name]), default=None)
    for contender in case.contenders:
        row: Row = {
            "op": case.op,
            "format": case.format,
            "shape": case.shape,
            "rows": case.rows,
            "kernel": contender.kernel,
            "own": contender.own,
        }
        if contender.absent is not None:
            yield row | {"absent": contender.absent, "refused": None}
            continue
        middle, low, high = interval(samples[contender.kernel])
        rate = contender.bytes / middle
        flops = case.flops / middle
        row |= {
            "us": middle * 1e6,
            "us_low": low * 1e6,
            "us_high": high * 1e6,
            "samples_us": [round(value * 1e6, 3) for value in samples[contender.kernel]],
            "gb_per_s": rate / 1e9,
            "copy_share": rate / speeds["copy"],
            "read_share": rate / speeds["read"] if "read" in speeds else None,
            "peak_share": flops / peaks[case.peak] if flops and case.peak in peaks else None,
            "baseline": case.baseline,
            "speedup": None,
            "speedup_low": None,
            "speedup_high": None,
            "refused": contender.wrong or refused.get(case.baseline),
        }
        if row["refused"] is None:
            ratio = _ratio(samples[case.baseline], samples[contender.kernel])
            row |= dict(zip(("speedup", "speedup_low", "speedup_high"), ratio, strict=True))
        if contender.own and best is not None and row["refused"] is None:
            ratio = _ratio(samples[best], samples[contender.kernel])
            names = ("versus_best", "versus_best_low", "versus_best_high")
            row |= {"best_other": best} | dict(zip(names, ratio, strict=True))
        yield row


def _ratio(theirs: list[float], ours: list[float]) -> tuple[float, float, float]:
    return interval([their / our for their, our in zip(theirs, ours, strict=True)])


def _sample(call: Callable[[], object], loops: int, wait: Callable[[], object]) -> float:
    wait()
    started = time.perf_counter()
    for _ in range(loops):
        call()
    wait()
    return (time.perf_counter() - started) / loops
