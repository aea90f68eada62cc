"""The step that sets what was served against this machine's limits, measured when nobody has."""

from __future__ import annotations

from core.machine.calibrate import Calibration, ensure, stored
from core.machine.share import shares
from core.measure.steps.context import TrialRun


def share(run: TrialRun) -> None:
    """The share of the bandwidth and of the matrix peak that was reached."""
    run.send(*shares(run.deployment, run.plan, run.served, _limits(run)))


def _limits(run: TrialRun) -> Calibration | None:
    """This machine's limits; the first trial pays for all. None for a target that is not here."""
    if not run.plan.case.target.local:
        return None
    limits = stored(run.environment)
    if limits is None:
        run.report("calibrate")(0.0)
        limits = ensure()
        run.note(
            "this machine's limits were not known: they were measured briefly, once;"
            " `trimtab doctor --calibrate` takes longer over it"
        )
    return limits if limits.environment == run.environment else None
