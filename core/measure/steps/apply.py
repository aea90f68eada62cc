"""The step that applies the plan's techniques to the loaded model."""

from __future__ import annotations

import time

from core.measure.steps.context import TrialRun
from core.techniques.applying import apply_all


def apply(run: TrialRun) -> None:
    """Change `run.deployment` as the plan says, and note how long preparing took."""
    apply_all(run.deployment, run.plan.techniques, run.report)
    run.prepared_s = time.perf_counter() - run.began
