"""The way from the command line to the kernels' benchmark, which app may not import itself."""

from __future__ import annotations


def run_kernels(op: str | None, as_json: bool) -> int:
    """Run kernels.bench and print its table or JSON; 1 when a kernel's correctness check failed."""
    from kernels import bench

    return int(bench.main(op, as_json))
