"""R10: mutated inputs to everything that reads what a user or a disk gives.

    python -m tests.evidence fuzz [--count 10000] [--seed 0] [--only NAME]

Each input must be taken or refused by one sentence (TrimtabError) within 10 s; any other exception
counts. --count 100000 is the long form of the same figure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from core.errors import TrimtabError
from tests.evidence.files.fuzz_readers import Readers

LIMIT_S = 10
# For one that waits and does not compute; a busy machine makes others wait too.
WAIT_S = 60.0
# How many of a hundred inputs go where; reports and commands are slow.
SHARES = {
    "config": 15, "header": 12, "tokenizer": 10, "index": 5, "journal": 4, "event": 7, "codec": 9,
    "calibration": 3, "lines": 7, "images": 4, "trace": 5, "toml": 3, "words": 9, "command": 1,
    "url": 5, "report": 1, "quantized": 8, "gguf": 8, "manifest": 1,
}  # fmt: skip


class Hang(BaseException):
    """The alarm rang."""


def _ring(*_: object) -> None:
    raise Hang(f"no end within {LIMIT_S} s of processor time or {WAIT_S} s")


def run(count: int, seed: int = 0, only: str = "") -> tuple[Counter[str], dict[str, list[str]]]:
    """(inputs by target and how they ended, exceptions by where they arose)."""
    ended: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    before = {one: signal.signal(one, _ring) for one in (signal.SIGALRM, signal.SIGPROF)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _cache(folder):
        warnings.simplefilter("ignore")
        readers = Readers(Path(folder))
        assert set(readers.targets) == set(SHARES), set(readers.targets) ^ set(SHARES)
        names = [only] if only else [name for name, share in SHARES.items() for _ in range(share)]
        for number in range(count):
            rng = random.Random(f"{seed}-{number}")
            name = rng.choice(names)
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            signal.setitimer(signal.ITIMER_REAL, WAIT_S)
            try:
                readers.targets[name](rng)
                ended[f"{name} taken"] += 1
            except TrimtabError as error:
                ended[f"{name} refused"] += 1
                if not str(error).isprintable():
                    wrong.setdefault(f"{name}: no plain sentence", []).append(f"{number}: {error}")
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = (
                    f"{name}: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
                )
                wrong.setdefault(where, []).append(f"input {number}: {error!s:.200}")
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
    for one, handler in before.items():
        signal.signal(one, handler)
    return ended, wrong


@contextlib.contextmanager
def _cache(folder: str) -> Iterator[None]:
    """The user's own calibration and store are left alone."""
    kept = {
        name: os.environ.get(name) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "TRIMTAB_STORE")
    }
    os.environ.update(XDG_CACHE_HOME=f"{folder}/cache", XDG_DATA_HOME=f"{folder}/data")
    os.environ.pop("TRIMTAB_STORE", None)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", choices=("", *SHARES))


def main(options: argparse.Namespace) -> int:
    """Print what was not caught, and the figure last."""
    began = time.monotonic()
    ended, wrong = run(options.count, options.seed, options.only)
    for where, examples in sorted(wrong.items()):
        print(f"{len(examples):6} x {where}: {examples[0]}")
    for name in SHARES:
        print(f"{name:12} {ended[f'{name} taken']:6} taken {ended[f'{name} refused']:6} refused")
    refused = sum(number for word, number in ended.items() if word.endswith("refused"))
    print(
        f"{options.count:,} fuzzed inputs to {len(SHARES)} readers in "
        f"{time.monotonic() - began:.0f} s: "
        f"{refused:,} refused by a sentence, {sum(map(len, wrong.values())):,} uncaught in "
        f"{len(wrong)} places."
    )
    return 1 if wrong else 0
