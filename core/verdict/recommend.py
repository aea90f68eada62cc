"""Chooses one trial of a study; the utility is in core.verdict.utility, the sentences in
core.verdict.reasons.

A trial can be recommended when it is done and every hard limit passes; an unknown value passes
none. Of those the one with the highest utility is taken; of equal ones the first measured. How sure
that choice is stands beside it: P(best) from the resampled pairs (core.verdict.chances).
"""

from __future__ import annotations

from dataclasses import dataclass

from core.study import Study, Trial
from core.verdict import frontier, limits, reasons, utility
from core.verdict.anchor import anchored
from core.verdict.chances import chances
from core.verdict.doubt import Doubt
from core.verdict.environments import disturbed

# A lead counts as proven from this P(best) on.
PROVEN = 0.95
# So many of the leading trials are worth measuring again while the lead is not proven.
AGAIN = 3


@dataclass(frozen=True)
class Recommendation:
    """The choice and its reasons; `trial_id` is None when no trial can be recommended.

    `rejected` holds (trial id, why not) for every other trial of the frontier, `frontier` the trial
    ids not beaten on all of the user's axes, `scores` (trial id, utility) of every finished trial,
    the best first. `p_best` is the share of resamples in which the choice is ahead of every other
    trial that could be recommended, None when too little was measured to say; `proven` whether that
    is at least PROVEN and not every trial was disturbed. `again` are the trials to measure again
    for a clearer answer, empty when it is proven.
    """

    trial_id: str | None
    because: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    frontier: tuple[str, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    p_best: float | None = None
    proven: bool = False
    again: tuple[str, ...] = ()


def recommend(study: Study) -> Recommendation:
    """The best trial of `study` under its priorities; the same study gives the same answer."""
    study = anchored(study)
    done = study.done()
    baseline = next((trial for trial in done if trial.is_baseline), None)
    if baseline is None:
        return Recommendation(None, (reasons.no_baseline(study),))
    scores = utility.utilities(study)
    best = _frontier(study)
    ranked = tuple(sorted(scores.items(), key=lambda item: -item[1]))
    feasible = [trial for trial in done if not limits.failures(trial, study.priorities.limits)]
    ids = tuple(trial.id for trial in best)
    if not feasible:
        rejected = tuple(
            (trial.id, limits.violation(trial, study.priorities.limits)) for trial in best
        )
        return Recommendation(None, limits.nothing_passes(done, study), rejected, ids, ranked)
    winner = max(feasible, key=lambda trial: (scores[trial.id], trial.id in ids))
    shares = chances(study, feasible)
    # Plans of one and the same utility are not told apart by more rounds: together they are best.
    level = [trial.id for trial in feasible if abs(scores[trial.id] - scores[winner.id]) < 1e-9]
    p_best = None if shares is None else min(1.0, sum(shares[trial_id] for trial_id in level))
    noisy = all(disturbed(trial) for trial in done)
    proven = len(feasible) > 1 and p_best is not None and p_best >= PROVEN and not noisy
    leading = sorted(feasible, key=lambda trial: (trial is not winner, -scores[trial.id]))[:AGAIN]
    doubt = Doubt(p_best, proven, noisy, tuple(leading[1:]), len(feasible))
    rejected = tuple(
        (trial.id, reasons.why_not(study, winner, trial, scores))
        for trial in best
        if trial.id != winner.id
    )
    return Recommendation(
        winner.id,
        reasons.because(study, winner, baseline, scores, doubt),
        rejected,
        ids,
        ranked,
        p_best,
        proven,
        () if proven or len(feasible) < 2 else tuple(trial.id for trial in leading),
    )


def _frontier(study: Study) -> tuple[Trial, ...]:
    """Trials not beaten on the weighted words' metrics and on the limited ones together."""
    names = [name for _, name in utility.axes(study)]
    names += [limit.metric for limit in study.priorities.limits]
    done = study.done()
    present = [
        name
        for name in dict.fromkeys(names)
        if any(limits.known(trial, name) is not None for trial in done)
    ]
    if not present:
        return ()
    kept = frontier.of_values(
        [[limits.known(trial, name) for name in present] for trial in done], tuple(present)
    )
    return tuple(done[index] for index in kept)
