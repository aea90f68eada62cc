"""One trial from a plan to its measurements, as a list of steps. Runs inside a worker process."""

from __future__ import annotations

from core.artefacts.prefix import Prefixes
from core.files.fingerprint import Fingerprint
from core.measure.steps.apply import apply
from core.measure.steps.context import Emit, TrialRun
from core.measure.steps.load import load
from core.measure.steps.memory import memory
from core.measure.steps.quality import quality
from core.measure.steps.serve import serve
from core.measure.steps.share import share
from core.measure.steps.sweep import sweep
from core.measure.steps.traffic import traffic
from core.plan import Plan
from core.planner.presets import preset

STEPS = (load, apply, memory, serve, share, sweep, traffic, quality)


def run_trial(
    plan: Plan,
    preset_name: str,
    environment: str,
    emit: Emit,
    planned: Fingerprint | None = None,
    prefixes: Prefixes | None = None,
    rounds: int | None = None,
) -> None:
    """Apply `plan` to freshly loaded weights and emit `measurement`, `kernels`, `note` and
    `progress` events.

    `emit(kind, **body)` writes one event; `planned` are the model's files when the study began,
    `prefixes` those of plans that its trials share; `rounds` are timed where the preset's are too
    many for the time that the study has left. Errors are raised: the worker turns them into the
    trial's end.
    """
    run = TrialRun(plan, preset(preset_name), environment, emit, planned, prefixes)
    if rounds is not None:
        run.shorten(rounds)
    for step in STEPS:
        step(run)
