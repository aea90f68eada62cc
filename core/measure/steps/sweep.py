"""The step that times other conditions than the workload's own: a full batch where it never fills,
and other prompt lengths and concurrencies.
"""

from __future__ import annotations

from core.measure.steps.context import TrialRun
from core.measure.sweep import CONCURRENCY, under_concurrency, under_lengths
from core.measurement import Measurement

# Rounds of a batch that the workload itself never fills.
FULL_BATCH_ROUNDS = 3


def sweep(run: TrialRun) -> None:
    """Nothing for a target that is not here; lengths and concurrencies for text, where the preset
    has rounds for them.
    """
    if not run.plan.case.target.local:
        return
    run.send(*_full_batch(run))
    rounds, model = run.preset.sweep_rounds, run.plan.case.model
    if not rounds or model.task != "text":
        return
    counts = tuple(count for count in CONCURRENCY if count != run.deployment.serving.batch)
    run.send(
        *under_lengths(run.serve, run.workload, model.decoder().context, rounds),
        *under_concurrency(run.serve, run.workload, counts, rounds),
    )


def _full_batch(run: TrialRun) -> list[Measurement]:
    """What this machine does with a full batch, where the workload never fills it."""
    workload, batch = run.workload, run.deployment.serving.batch
    if batch <= workload.concurrency:
        return []
    run.note(
        f"{workload.title or workload.id} asks for {workload.concurrency} at a time, so batches"
        f" of {batch} never fill: what a full one would give was timed apart, under"
        f" concurrency={batch}"
    )
    rounds = max(run.preset.sweep_rounds, FULL_BATCH_ROUNDS)
    return under_concurrency(run.serve, workload, (batch,), rounds)
