"""What a benchmark of kernels is made of: contenders that do the same work, and fp64 checks.

Owns the records and the helpers that the case files share; timing.py times them.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kernels import registry

# What is known of one contender of one case; run.py's run_bench says which fields there are.
Row = dict[str, object]


@dataclass(frozen=True)
class Contender:
    """One kernel at work: `call` does it `times` times, each touching `bytes` bytes (weights, in
    and out). `own` is whether the kernel is ours. `absent` says why it cannot be timed here, and
    `wrong` why its times count for nothing.
    """

    kernel: str
    bytes: int
    call: Callable[[], object]
    times: int = 1
    own: bool = False
    absent: str | None = None
    wrong: str | None = None


@dataclass(frozen=True)
class BenchCase:
    """One shape, done by several kernels; `baseline` is the kernel that ratios refer to.

    `flops` of one call and the `peak` they are compared with ("bf16" or "int8") are 0 and "" where
    matrix units do not matter. `pause` seconds pass before each sample, for threads to sleep.
    """

    op: str
    shape: str
    rows: int
    baseline: str
    contenders: tuple[Contender, ...]
    format: str = "bf16"
    flops: int = 0
    peak: str = ""
    pause: float = 0.0


def missing(kernel: str, reason: str) -> Contender:
    """A contender that cannot run here, and why."""
    return Contender(kernel, 0, lambda: None, absent=reason)


def name_of(info: registry.KernelInfo) -> str:
    """The kernel as TRIMTAB_KERNEL spells it."""
    return f"{info.op}={info.name}"


def is_own(info: registry.KernelInfo) -> bool:
    """Whether the kernel is written here and no binding of torch's."""
    return not info.name.startswith("torch")


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
