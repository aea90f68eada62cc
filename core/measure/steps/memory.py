"""The step that measures memory, before another model is loaded beside this one."""

from __future__ import annotations

from dataclasses import replace

from core.measure.memory import measure_disk, measure_memory
from core.measure.steps.context import TrialRun
from core.measurement import Measurement


def memory(run: TrialRun) -> None:
    """What a group of requests holds, the artefact's bytes on disk, the resident weights, and what
    preparing took.
    """
    deployment, service = run.deployment, run.service
    group = replace(service, requests=service.requests[: deployment.serving.batch])
    run.served += [
        *measure_memory(deployment, run.plan, run.workload, group.round, run.resident_before),
        measure_disk(run.plan, deployment.engine),
        Measurement(
            "model_bytes",
            (float(deployment.weight_bytes()),),
            "B",
            "measured",
            "sum of the resident weight tensors, draft included",
        ),
        Measurement(
            "prepare_s",
            (run.prepared_s,),
            "s",
            "measured",
            "loading the weights and applying the techniques, once",
        ),
    ]
