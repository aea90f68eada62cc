"""The step that times the plan under the workload, in turns with the unchanged model."""

from __future__ import annotations

from dataclasses import replace

from core.engine.allocator import free_on_gpu
from core.engine.serve.serving import Serving
from core.machine.conditions import Conditions
from core.machine.environment import available_bytes
from core.measure import chosen, fallbacks
from core.measure.serve import Service, measure_serving
from core.measure.steps.context import TrialRun
from core.measure.steps.place import cost, placed
from core.measurement import Measurement
from core.study import KernelCalls
from kernels import calls


def serve(run: TrialRun) -> None:
    """Time the workload, say which kernels ran, and send all that was measured so far."""
    calls.reset()
    conditions = Conditions(gpu=run.device == "cuda")
    run.deployment.report = run.report("serve")
    run.deployment.report(0.0)
    timed = measure_serving(run.service, run.preset, lambda: _unchanged(run))
    run.note(*conditions.notes())
    kernels = tuple(
        KernelCalls(str(row["op"]), str(row["name"]), int(row["calls"])) for row in calls.snapshot()
    )
    run.emit("kernels", kernels=kernels)
    floats = run.deployment.engine.kernel_formats()
    run.note(*fallbacks.notes(run.device, floats, kernels), *chosen.notes())
    run.note(*fallbacks.uncaptured((run.deployment.engine, *run.deployment.serving.beside)))
    run.served = [
        *timed,
        *run.served,
        Measurement(
            "concurrency",
            (float(run.workload.concurrency),),
            "",
            "measured",
            "requests that each timed round kept in flight, as the workload asks",
        ),
        cost(run.plan.case.target, timed),
    ]
    run.send(*placed(run))


def _unchanged(run: TrialRun) -> Service | None:
    """The unchanged model under the case's own workload, to take turns with the plan."""
    if not run.plan.techniques:
        return None
    deployment = run.deployment
    needed = run.plan.case.model.weight_bytes()
    free = free_on_gpu() if run.device == "cuda" else available_bytes()
    if 1.5 * needed > free:
        run.note(
            f"the unchanged model ({needed:,} B) does not fit beside this one into the free"
            f" {free:,} B: it was not measured in turns, the study's own baseline is compared"
        )
        return None
    engine = deployment.load_baseline()
    # Judging the quality compares with the same: nothing changes it any more.
    deployment.load_baseline = lambda: engine
    return run.serve(run.workload, replace(deployment, engine=engine, serving=Serving()))
