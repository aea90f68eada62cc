"""The step that measures quality on the very weights that were timed."""

from __future__ import annotations

from dataclasses import replace

from core.caution import Caution
from core.engine.load.load import load_engine
from core.measure.quality.measure import measure_quality
from core.measure.steps.context import TrialRun
from core.measurement import Measurement
from core.predict.carried import place_quality


def quality(run: TrialRun) -> None:
    """Quality in pairs with the unchanged model; of the unchanged model itself also what loading
    rounded.
    """
    run.report("quality")(0.0)
    deployment, unchanged = run.deployment, not run.plan.techniques
    rows = measure_quality(deployment, run.preset, deployment.prefix, unchanged)
    lost = run.files.rounded if unchanged and run.files is not None else ""
    run.send(*place_quality(rows, run.plan), *(_rounded(run, lost) if lost else ()))


def _rounded(run: TrialRun, lost: str) -> list[Measurement]:
    """The KL of what loading rounded (`lost`, a sentence), against the file's numbers in fp32."""
    model, device = run.plan.case.model, run.device
    run.note(Caution("rounded", f"the unchanged model is not quite the file's: {lost}"))
    if model.precision == "fp32" or model.task != "text":
        return []
    exact = replace(
        run.deployment, load_baseline=lambda: load_engine(run.source, device=device, dtype="fp32")
    )
    rows = measure_quality(exact, run.preset, exact.prefix, unchanged=False)
    return [
        replace(row, metric="rounding_kl_nats", method=f"{row.method}; {lost}", reference=())
        for row in rows
        if row.metric == "kl_nats"
    ]
