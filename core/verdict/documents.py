"""The JSON document of a study, as `run --json` and `show --json` print it.

Scripts depend on its keys: nothing here may be renamed or left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.dataset import Dataset
from core.machine.stays import stay_document, stays
from core.margin import Margin, non_inferiority
from core.measurement import Measurement
from core.metrics import metric
from core.plan import settings
from core.study import Study, Trial
from core.verdict.against import against
from core.verdict.anchor import anchored
from core.verdict.environments import Facts, cautions, warnings
from core.verdict.recommend import recommend
from core.verdict.robust.firmness import robustness
from core.verdict.robust.nearest import nearest


def study_document(
    study: Study, environments: Mapping[str, Facts | None] | None = None
) -> dict[str, Any]:
    """JSON-safe data of `study`: full precision, null for what is not known, no NaN or infinity.

    `environments` gives the facts of environment ids, so that a warning can name what differs.
    """
    judged = anchored(study)
    advice = recommend(judged)
    baseline = study.baseline
    return {
        "study": {
            "id": study.id,
            "model": study.case.model.id,
            "target": study.case.target.id,
            "workload": study.case.workload.id,
            "priorities": dict(study.priorities.weights),
            "limits": [str(limit) for limit in study.priorities.limits],
            "margins": [str(margin) for margin in study.priorities.margins],
            "data": [data_document(dataset) for dataset in study.case.data],
            "state": study.state,
            "who": study.who or None,
        },
        "baseline": None if baseline is None else baseline.id,
        "frontier": list(advice.frontier),
        "recommendation": {
            "trial": advice.trial_id,
            "because": list(advice.because),
            "rejected": dict(advice.rejected),
            "p_best": finite(advice.p_best),
            "proven": advice.proven,
            "again": list(advice.again),
            "robustness": robustness_document(judged, advice.trial_id),
        },
        "trials": [
            {
                **trial_document(trial, study.priorities.margins),
                "against_baseline": verdicts(anchored_trial, judged.baseline),
            }
            for trial, anchored_trial in zip(study.trials, judged.trials, strict=True)
        ],
        "warnings": [*warnings(study.trials, environments), *left_out(study)],
        "machines": [stay_document(stay) for stay in stays(study.trials, environments or {})],
    }


def robustness_document(study: Study, trial_id: str | None) -> dict[str, Any] | None:
    """What would change the choice of an anchored study (core.verdict.robust); None without one."""
    winner = study.trial(trial_id) if trial_id else None
    if winner is None:
        return None
    firm, level = robustness(study, winner), nearest(study, winner)
    return {
        "shares": {each: finite(share) for each, share in firm.shares},
        "weights": [
            {"word": flip.word, "now": flip.now, "at": finite(flip.at), "trial": flip.trial_id}
            for flip in firm.weight_flips
        ],
        "limits": [
            {"limit": str(flip.limit), "at": finite(flip.at), "trial": flip.trial_id}
            for flip in firm.limit_flips
        ],
        "nearest": None
        if level is None
        else {
            "weights": dict(level.weights),
            "distance": finite(level.distance),
            "trial": level.trial_id,
        },
    }


def left_out(study: Study) -> tuple[str, ...]:
    """The sentence for plans that a study left out to end in time: those are cancelled in a study
    that is done. None in any other study.
    """
    titles = [trial.plan.title for trial in study.trials if trial.state == "cancelled"]
    if study.state != "done" or not titles:
        return ()
    return (
        f"{len(titles)} of {len(study.trials)} plans were left out, so that the study ends in time:"
        f" {'; '.join(titles)}. What they would have given is not known.",
    )


def margins_kept(trial: Trial, margins: Sequence[Margin]) -> tuple[tuple[Margin, str, str], ...]:
    """(margin, `non-inferior` | `inferior` | `undecided`, sentence) of a done candidate; nothing
    for the baseline and for trials that did not end well.
    """
    if trial.state != "done" or trial.is_baseline:
        return ()
    return tuple(
        (margin, *non_inferiority(metric(margin.metric), trial.metric(margin.metric), margin))
        for margin in margins
    )


def verdicts(trial: Trial, baseline: Trial | None) -> dict[str, Any]:
    """What the judge says of each of a finished candidate's metrics against the study's baseline:
    ratio with its interval (null where there is none), verdict, and the value at the study's pooled
    baseline (core.verdict.anchor)."""
    if trial.state != "done" or baseline is None or trial.is_baseline or baseline.state != "done":
        return {}
    judgements = {}
    for row in trial.measurements:
        if not row.condition and not metric(row.metric).unjudged:
            judgement = against(trial, baseline, row.metric)
            judgements[row.metric] = {
                "ratio": finite(judgement.ratio),
                "low": finite(judgement.low),
                "high": finite(judgement.high),
                "verdict": judgement.verdict,
                "at_pooled_baseline": finite(row.value),
            }
    return judgements


def data_document(dataset: Dataset) -> dict[str, Any]:
    """One of the user's data sets; where it lies stays on this machine."""
    return {
        "id": dataset.id,
        "kind": dataset.kind,
        "sha256": dataset.sha256 or None,
        "items": dataset.items or None,
    }


def trial_document(trial: Trial, margins: Sequence[Margin] = ()) -> dict[str, Any]:
    """One entry of the document's `trials`; each margin gets a word and a sentence."""
    return {
        "id": trial.id,
        "plan": {"techniques": [settings(technique) for technique in trial.plan.techniques]},
        "state": trial.state,
        "reason": trial.reason,
        "who": trial.who or None,
        "kernels": [{"op": run.op, "name": run.name, "calls": run.calls} for run in trial.kernels],
        "environments": list(trial.environments),
        "cautions": [caution.text for caution in cautions(trial)],
        "metrics": {
            row.metric: metric_document(row) for row in trial.measurements if not row.condition
        },
        "margins": {
            margin.metric: {"margin": str(margin), "word": word, "sentence": sentence}
            for margin, word, sentence in margins_kept(trial, margins)
        },
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
