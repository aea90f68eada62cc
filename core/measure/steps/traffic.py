"""The step that serves requests which arrive on their own, where the workload says how they do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.data.arrivals import arrivals
from core.measure.steps.context import TrialRun, requests
from core.measure.traffic import measure_traffic

# Fewer requests than this say nothing of a queue.
FEWEST = 8


def traffic(run: TrialRun) -> None:
    """Nothing for images and for a target that is not here."""
    case, workload, preset = run.plan.case, run.workload, run.preset
    if case.model.task != "text" or not case.target.local:
        return
    rate = workload.arrival_per_s
    # Waiting for rare requests must not use up the time that a trial has.
    count = preset.requests if rate is None else min(preset.requests, int(rate * preset.wall_s / 4))
    asked = arrivals(workload, max(count, FEWEST), run.plan.seed)
    if not asked:
        return

    def prompts(count: int, length: int) -> Any:
        varied = replace(workload, concurrency=count, prompt_tokens=length)
        return requests(run.deployment, varied, run.plan.seed)

    run.send(*measure_traffic(run.deployment, workload, asked, prompts))
