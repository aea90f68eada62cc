"""How the autotuners of Triton kernels choose blocks, and how many programs those make; imports
triton only for its configurations and to time them on a GPU.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Milliseconds: Triton's own 25 and 100 would take a second for each shape of a decoder.
WARMUP_MS, REPEAT_MS = 5, 20
MOST_ROWS = 2048
# Programs that share one sum over k, at most.
MAX_SPLIT = 16
# The calls whose blocks an autotuner has chosen: all that its own key is made of, and more.
tuned: set[tuple[object, ...]] = set()


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


def configurations(rows: Iterable[tuple[int, int, int, int, int, int]]) -> list[Any]:
    """Autotuner configurations of BLOCK_N, BLOCK_M, BLOCK_K, WAVES, warps and stages; WAVES is how
    many programs are wanted on each multiprocessor where a sum is split. In the interpreter the
    first alone.
    """
    import triton

    configs = [
        triton.Config(
            {"BLOCK_N": n, "BLOCK_M": m, "BLOCK_K": k, "WAVES": waves},
            num_warps=warps,
            num_stages=stages,
        )
        for n, m, k, waves, warps, stages in rows
    ]
    return configs[:1] if INTERPRETED else configs


@dataclass(frozen=True)
class TileGrid:
    """The programs of a product x [rows, k] times a weight [n, k], on so many multiprocessors; by
    the blocks of one of `configurations`. `split` programs share a sum over k, None: enough.
    """

    rows: int
    n: int
    k: int
    processors: int
    split: int | None = None

    def grid(self, blocks: dict[str, int]) -> tuple[int, int]:
        """Tiles of the output, and programs that share each."""
        tiles = -(-self.rows // blocks["BLOCK_M"]) * -(-self.n // blocks["BLOCK_N"])
        most = -(-self.k // blocks["BLOCK_K"])
        if self.split is not None:
            return tiles, max(1, min(self.split, most))
        wanted = blocks["WAVES"] * self.processors // tiles
        return tiles, max(1, min(MAX_SPLIT, most, wanted))

    def most_splits(self, configs: Iterable[Any]) -> int:
        """Of all configurations: room for so many partial sums is enough."""
        return max(self.grid(config.kwargs)[1] for config in configs)


def launch_tuned(key: tuple[object, ...], launch: Callable[[Any], object], out: Any) -> None:
    """Launch on the tensor `out`. The first call of a key has its autotuner run the kernel many
    times, and does that on an output of its own: `out` may be what is added to it.
    """
    if key not in tuned:
        launch(out.new_empty(out.shape))
        tuned.add(key)
    launch(out)
