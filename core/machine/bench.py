"""The way from the command line to the kernels' benchmark, which app may not import itself."""

from __future__ import annotations

from argparse import Namespace

from core.errors import BadInput
from kernels.bench import run as bench


def run_kernels(options: Namespace) -> int:
    """Run kernels.bench.run with `op`, `format`, `shape`, `rows`, `full`, `markdown` and `json`,
    and print; 1 when one of our kernels failed its check, 2 for an unknown operation or format.
    """
    try:
        choice = bench.chosen(options)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return int(bench.main(as_json=options.json, **choice))
