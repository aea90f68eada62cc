"""What a benchmark of kernels is made of: contenders that do the same work, and fp64 checks.

Owns the records and two helpers that the case files share; bench.py times them.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kernels import registry


@dataclass(frozen=True)
class Contender:
    """One kernel at work: `call` does it once and touches `bytes` bytes (weights, in and out)."""

    kernel: str
    bytes: int
    call: Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One shape, done by several kernels; `baseline` is the kernel that ratios refer to."""

    op: str
    shape: str
    rows: int
    baseline: str
    contenders: tuple[Contender, ...]


def name_of(info: registry.KernelInfo) -> str:
    """The kernel as TRIMTAB_KERNEL spells it."""
    return f"{info.op}={info.name}"


def runnable(op: str, device: str) -> list[registry.KernelInfo]:
    """The kernels of `op` that run on `device` here by their own nature (no interpreter)."""
    return [
        info
        for info, reason in registry.kernels_available(device)
        if info.op == op and reason is None and device in info.devices
    ]


@contextlib.contextmanager
def only(info: registry.KernelInfo) -> Iterator[None]:
    """Within this, selection takes this kernel for its operation, or fails."""
    before = os.environ.get(registry.ENVIRONMENT)
    os.environ[registry.ENVIRONMENT] = name_of(info)
    try:
        yield
    finally:
        if before is None:
            del os.environ[registry.ENVIRONMENT]
        else:
            os.environ[registry.ENVIRONMENT] = before
