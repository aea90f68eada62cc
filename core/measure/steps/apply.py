"""The step that applies the plan's techniques, from where a kept prefix of the plan ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from core.artefacts.prefix import Making, Prefix
from core.caution import Note
from core.engine.allocator import give_back_on_gpu
from core.measure.steps.context import TrialRun
from core.measurement import Measurement
from core.techniques import training_text
from core.techniques.applying import apply_all

Said = TypeVar("Said")


def apply(run: TrialRun) -> None:
    """Change `run.deployment` as the plan says, and note how long preparing took."""
    deployment = run.deployment
    notes: list[Note] = []
    rows: list[Measurement] = []
    deployment.note, deployment.keep = _also(notes.append, run.note), _also(rows.append, run.send)
    if run.prefix is not None:
        _recall(run, run.prefix)

    def keep(count: int) -> None:
        if run.prefixes is None or run.files is None or count not in run.prefixes.lengths:
            return
        paused = time.perf_counter()
        making = Making(run.prefixes.trial, paused - run.began, tuple(notes), tuple(rows))
        why_not = run.prefixes.keep(run.plan, count, deployment, run.files.config, making)
        run.began += time.perf_counter() - paused
        if why_not:
            run.note(why_not)

    begun = 0 if run.prefix is None else run.prefix.count
    apply_all(deployment, run.plan.techniques, run.report, begun, keep)
    if run.device == "cuda":
        # Work is queued: it is prepared when it is done. What it took meanwhile goes back.
        give_back_on_gpu()
    run.prepared_s = time.perf_counter() - run.began
    deployment.note, deployment.keep = run.note, run.send


def _recall(run: TrialRun, prefix: Prefix) -> None:
    """Say what making the prefix said, and count its seconds instead of those of loading it."""
    for note in prefix.making.notes:
        run.deployment.note(note)
    for row in prefix.making.measurements:
        run.deployment.keep(row)
    training_text.recall(run.deployment, prefix.learned)
    run.began = time.perf_counter() - prefix.making.seconds


def _also(keep: Callable[[Said], None], tell: Callable[[Said], None]) -> Callable[[Said], None]:
    def both(said: Said) -> None:
        keep(said)
        tell(said)

    return both
