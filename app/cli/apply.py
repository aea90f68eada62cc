"""`trimtab apply`: the compressed model as a folder that loads again, here and elsewhere."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from core import format as formats
from core import techniques
from core.artefacts.apply import apply as write_artefact
from core.catalogue import models, workloads
from core.data.files import datasets_for
from core.machine import targets
from core.measure.fallbacks import lost
from core.plan import Case, Plan


def apply(parsed: argparse.Namespace) -> int:
    """Apply the techniques, write the folder, print what is in it."""
    model = models.resolve(parsed.model)
    workload = "chat" if model.task == "text" else "sensor-frame"
    data = datasets_for(parsed.data, model)
    case = Case(model, targets.resolve("local"), workloads.resolve(workload), data)
    texts = (part for text in parsed.technique for part in techniques.parse_stack(text))
    plan = Plan(case, tuple(map(techniques.parse, texts)), parsed.seed)
    folder = Path(parsed.output)
    progress = ApplyProgress()
    with _interruptible():
        artefact = write_artefact(plan, folder, parsed.format, progress.note, progress)
    for reason, ops in lost("cpu").items():
        progress.note(f"our kernels of {', '.join(ops)} do not run here, slower ones do: {reason}")
    progress.end()
    if parsed.json:
        json.dump({"folder": str(folder), **asdict(artefact)}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    matrices = ", ".join(f"{count} {name}" for name, count in artefact.matrices.items())
    print(f"{folder}: {plan.title} as {artefact.format}, {matrices}")
    print(
        f"weights {formats.of_metric('disk_bytes', artefact.sizes['weights'])}, from"
        f" {formats.of_metric('disk_bytes', artefact.sizes['source'])} of {model.id}"
    )
    for technique in artefact.runtime:
        print(f"to be chosen when it is served: {technique['name']}")
    print(f"run it with: trimtab run --model {folder}")
    return 0


class ApplyProgress:
    """Notes to stderr, and the running stage on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def __call__(self, stage: str, share: float) -> None:
        """Show a stage and its share."""
        if self._terminal:
            print(f"\r\x1b[K{stage} {share:.0%}", end="", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that a technique or a format has to say."""
        self.end()
        print(text, file=sys.stderr)

    def end(self) -> None:
        """Clear the running line."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does, so that the folder being written is removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Once: a second signal would cut the removal short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
