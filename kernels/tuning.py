"""How the autotuners of Triton kernels choose blocks; imports triton only to time them on a GPU."""

import os
import time
from collections.abc import Callable
from typing import Any

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Milliseconds: Triton's own 25 and 100 would take a second for each shape of a decoder.
WARMUP_MS, REPEAT_MS = 5, 20
MOST_ROWS = 2048


def bench(call: Callable[[], object], quantiles: tuple[float, ...]) -> list[float]:
    """Milliseconds of `call` at the quantiles, each time with a last cache that holds other data.

    In the interpreter the clock on the wall, as no GPU is there.
    """
    if INTERPRETED:
        started = time.perf_counter()
        call()
        return [(time.perf_counter() - started) * 1e3] * len(quantiles)
    from triton.testing import do_bench

    times: list[float] = do_bench(call, warmup=WARMUP_MS, rep=REPEAT_MS, quantiles=quantiles)
    return times


def rows_bucket(rows: int) -> int:
    """Blocks are chosen once for all numbers of rows up to the next power of two, from 16 on, and
    once for all beyond MOST_ROWS: prompts come in many lengths.
    """
    return min(MOST_ROWS, max(16, 1 << max(0, rows - 1).bit_length()))


def suited(configs: list[Any], bucket: int) -> list[Any]:
    """Of autotuner configurations with a BLOCK_M, those whose tile suits the number of rows."""
    smallest, largest = (16, 16) if bucket <= 16 else (min(bucket // 2, 128), bucket)
    fit = [config for config in configs if smallest <= config.kwargs["BLOCK_M"] <= largest]
    return fit or configs


def early(configs: list[Any], named: dict[str, int], **_: object) -> list[Any]:
    """`suited` as Triton's autotuner asks for it; the kernel has an argument `rows_bucket`."""
    return suited(configs, named["rows_bucket"])
