"""Chooses one trial of a study; the utility is in core.utility, the sentences in core.reasons.

A trial can be recommended when it is done and every hard limit passes; an unknown value passes
none. Of those the one with the highest utility is taken; of equal ones the first measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from core import frontier, reasons, utility
from core.study import Study, Trial


@dataclass(frozen=True)
class Recommendation:
    """The choice and its reasons; `trial_id` is None when no trial can be recommended.

    `rejected` holds (trial id, why not) for every other trial of the frontier, `frontier` the trial
    ids not beaten on all of the user's axes, `scores` (trial id, utility) of every finished trial,
    the best first.
    """

    trial_id: str | None
    because: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    frontier: tuple[str, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()


def recommend(study: Study) -> Recommendation:
    """The best trial of `study` under its priorities; the same study gives the same answer."""
    done = study.done()
    baseline = next((trial for trial in done if trial.is_baseline), None)
    if baseline is None:
        return Recommendation(None, (reasons.no_baseline(study),))
    scores = utility.utilities(study)
    best = _frontier(study)
    ranked = tuple(sorted(scores.items(), key=lambda item: -item[1]))
    feasible = [trial for trial in done if not reasons.failures(trial, study.priorities.limits)]
    ids = tuple(trial.id for trial in best)
    if not feasible:
        rejected = tuple(
            (trial.id, reasons.violation(trial, study.priorities.limits)) for trial in best
        )
        return Recommendation(None, reasons.nothing_passes(done, study), rejected, ids, ranked)
    winner = max(feasible, key=lambda trial: (scores[trial.id], trial.id in ids))
    rejected = tuple(
        (trial.id, reasons.why_not(study, winner, trial, scores))
        for trial in best
        if trial.id != winner.id
    )
    return Recommendation(
        winner.id, reasons.because(study, winner, baseline, scores), rejected, ids, ranked
    )


def _frontier(study: Study) -> tuple[Trial, ...]:
    """Trials not beaten on the weighted words' metrics and on the limited ones together."""
    names = [name for _, name in utility.axes(study)]
    names += [limit.metric for limit in study.priorities.limits]
    done = study.done()
    present = [
        name
        for name in dict.fromkeys(names)
        if any(reasons.known(trial, name) is not None for trial in done)
    ]
    if not present:
        return ()
    kept = frontier.of_values(
        [[reasons.known(trial, name) for name in present] for trial in done], tuple(present)
    )
    return tuple(done[index] for index in kept)
