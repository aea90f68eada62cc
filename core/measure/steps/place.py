"""What was served here as it is on the case's target: itself, or its projection onto a target that
is not here; and what a token costs there.
"""

from __future__ import annotations

from collections.abc import Sequence

from core import format as formats
from core.machine.calibrate import ensure
from core.measure.steps.context import TrialRun
from core.measurement import Measurement, unavailable
from core.metrics import listed, metric
from core.predict import project
from core.study import Trial
from core.target import Target


def cost(target: Target, served: Sequence[Measurement]) -> Measurement:
    """Dollars per million new tokens at the target's rent and the throughput."""
    rent = target.usd_per_hour
    rate = next((row for row in served if row.metric == "tokens_per_s"), None)
    if rent is None:
        return unavailable(
            "usd_per_mtok", "$", f"the target {target.id} has no stated price per hour"
        )
    if rate is None:
        return unavailable("usd_per_mtok", "$", "cost per token is not defined for images")
    samples, reference = (
        tuple(rent / 3600 / each * 1e6 for each in rates)
        for rates in (rate.samples, rate.reference)
    )
    how = f"${rent:g} an hour at the measured throughput"
    return Measurement("usd_per_mtok", samples, "$", "measured", how, reference=reference)


def placed(run: TrialRun) -> Sequence[Measurement]:
    """What was served here, or its projection; then a note keeps each number that is replaced."""
    target = run.plan.case.target
    if target.local:
        return run.served
    # Without this machine's own limits a projection could not use what was measured on it.
    ensure()
    here = tuple(row for row in run.served if row.metric != "usd_per_mtok")
    told = listed("note_of_origin")
    for row in here:
        if row.value is not None and not row.condition and row.metric in told:
            value = formats.of_metric(row.metric, row.value)
            run.note(f"measured on the machine that ran it: {metric(row.metric).label} {value}")
    return project(Trial("", "", run.plan, measurements=here), target)
