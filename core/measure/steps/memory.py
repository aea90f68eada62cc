"""The step that measures memory, before another model is loaded beside this one."""

from __future__ import annotations

from dataclasses import replace

from core.measure.memory import measure_disk, measure_memory
from core.measure.steps.context import TrialRun
from core.measurement import Measurement
from core.plan import label


def memory(run: TrialRun) -> None:
    """What a group of requests holds, the artefact's bytes on disk, the resident weights, and what
    preparing took.
    """
    run.report("memory")(0.0)
    deployment, service = run.deployment, run.service
    group = replace(service, requests=service.requests[: deployment.serving.batch])
    run.served += [
        *measure_memory(deployment, run.plan, run.workload, group.round, run.resident_before),
        measure_disk(run.plan, deployment.engine, run.files.path if run.files else None),
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
            _prepared(run),
        ),
    ]


def _prepared(run: TrialRun) -> str:
    how = "loading the weights and applying the techniques, once"
    if run.prefix is None:
        return how
    shared, making = run.plan.techniques[: run.prefix.count], run.prefix.making
    return (
        f"{how}; {' + '.join(map(label, shared))} was made by trial {making.trial} in"
        f" {making.seconds:.3g} s and loaded here"
    )
