"""The JSON document of a study, as `run --json` and `show --json` print it.

Scripts depend on its keys: nothing here may be renamed or left out.
"""

from __future__ import annotations

import math
from typing import Any

from core.measurement import Measurement
from core.plan import settings
from core.recommend import recommend
from core.study import Study, Trial


def study_document(study: Study) -> dict[str, Any]:
    """JSON-safe data of `study`: full precision, null for what is not known, no NaN or infinity."""
    advice = recommend(study)
    baseline = study.baseline
    return {
        "study": {
            "id": study.id,
            "model": study.case.model.id,
            "target": study.case.target.id,
            "workload": study.case.workload.id,
            "priorities": dict(study.priorities.weights),
            "limits": [str(limit) for limit in study.priorities.limits],
            "state": study.state,
        },
        "baseline": None if baseline is None else baseline.id,
        "frontier": list(advice.frontier),
        "recommendation": {
            "trial": advice.trial_id,
            "because": list(advice.because),
            "rejected": dict(advice.rejected),
        },
        "trials": [trial_document(trial) for trial in study.trials],
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """One entry of the document's `trials`."""
    return {
        "id": trial.id,
        "plan": {"techniques": [settings(technique) for technique in trial.plan.techniques]},
        "state": trial.state,
        "reason": trial.reason,
        "kernels": [{"op": run.op, "name": run.name, "calls": run.calls} for run in trial.kernels],
        "metrics": {one.metric: metric_document(one) for one in trial.measurements},
    }


def metric_document(measurement: Measurement) -> dict[str, Any]:
    """Value and interval (null when not known), number of samples, unit and origin."""
    low, high = measurement.interval() or (None, None)
    return {
        "value": finite(measurement.value),
        "low": finite(low),
        "high": finite(high),
        "n": measurement.n,
        "unit": measurement.unit,
        "origin": measurement.origin,
    }


def finite(value: float | None) -> float | None:
    """`value`, or None for NaN and infinities, which JSON cannot say."""
    return value if value is not None and math.isfinite(value) else None
