"""Which of several ways to do one operation is the fastest here: measured once, kept, redone when
anything changes.

Owns what the process knows; answers.py keeps it on disk, beside the compiled kernels' cache, and
clock.py takes the times; ways.py puts the kernels of a packed matrix to the choice. A kernel asked
for by name is never put to it: whoever offers the candidates sees to that. On a CPU nothing is
measured by itself: there the first candidate is the answer.
"""

import contextlib
import dataclasses
import importlib.metadata
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kernels import build_ids
from kernels.calls import apart
from kernels.choice.answers import Answer, Question, as_data, folder, path_of, read, write
from kernels.choice.clock import Call, rounds

__all__ = [
    "Answer",
    "Question",
    "as_data",
    "asked",
    "by_rule",
    "device_name",
    "fastest",
    "here",
    "kept",
    "measures",
]
PACKAGES = ("torch", "triton")

_known: dict[tuple[Question, str], Answer] = {}
_lock = threading.Lock()
_asking = threading.local()


def fastest(
    question: Question,
    names: tuple[str, ...],
    ready: Callable[[], Mapping[str, Call]],
    device: Any,
) -> str:
    """The fastest of the candidates `names` on `device`, a torch.device.

    `ready` makes a call of each, on tensors that it may fill; it is asked only when there is no
    answer yet. The first of `names` is the answer where nothing may be measured (`measures`), and
    where no candidate could be timed.
    """
    if len(names) == 1:
        return names[0]
    where = device_name(device)
    with _lock:
        known = _known.get((question, where))
    if known is not None and set(names) == {*known.samples, *known.failed}:
        return known.name
    if not measures(device):
        return names[0]
    made_of = _made_of()
    choice = read(path_of(question, where, made_of))
    if (
        choice is None
        or (choice.question, choice.device, choice.made_of) != (question, where, made_of)
        or set(names) != {*choice.samples, *choice.failed}
    ):
        choice = _measure(question, names, ready, device, where, made_of)
        if choice is None:
            return names[0]
        write(choice)
    with _lock:
        _known[question, where] = choice
    return choice.name


def measures(device: Any) -> bool:
    """Whether a question may be settled by measuring now: on a GPU that captures no graph, outside
    of `by_rule`.
    """
    if getattr(_asking, "by_rule", False) or device.type != "cuda":
        return False
    import torch

    return not torch.cuda.is_current_stream_capturing()


@contextlib.contextmanager
def by_rule() -> Iterator[None]:
    """Within this, in this thread, nothing new is measured."""
    before = getattr(_asking, "by_rule", False)
    _asking.by_rule = True
    try:
        yield
    finally:
        _asking.by_rule = before


def kept() -> list[Answer]:
    """Every readable answer on this disk, by device and question; also those that versions or
    sources of another day gave.
    """
    files = sorted(folder().glob("*.json")) if folder().is_dir() else []
    choices = filter(None, map(read, files))
    return sorted(choices, key=lambda choice: (choice.device, dataclasses.astuple(choice.question)))


def asked() -> list[Answer]:
    """The answers that this process has used, by question."""
    with _lock:
        known = list(_known.values())
    return sorted(known, key=lambda answer: dataclasses.astuple(answer.question))


def here() -> list[Answer]:
    """Of `kept`, those that count on this machine now."""
    import torch

    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    names = {device_name(device) for device in devices}
    return [choice for choice in kept() if choice.device in names and current(choice)]


def current(choice: Answer) -> bool:
    """Whether it was given by what is installed now."""
    return choice.made_of == _made_of()


def forget() -> None:
    """Forget what this process knows; the disk keeps its answers."""
    with _lock:
        _known.clear()


def device_name(device: Any) -> str:
    """As the driver names it; a CPU by its model and the threads of torch."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _measure(
    question: Question,
    names: tuple[str, ...],
    ready: Callable[[], Mapping[str, Call]],
    device: Any,
    where: str,
    made_of: str,
) -> Answer | None:
    # What is tried is no work of the trial's.
    with apart():
        try:
            candidates = ready()
        except Exception:
            return None
        samples, failed = rounds({name: candidates[name] for name in names}, device)
    if not samples:
        return None
    best = min(samples, key=lambda name: statistics.median(samples[name]))
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    return Answer(question, where, made_of, best, samples, failed, now)


def _made_of() -> str:
    packages = [f"{name} {_version(name)}" for name in PACKAGES]
    return ", ".join((*packages, f"kernels {build_ids.sources_id()}"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return "CPU"
