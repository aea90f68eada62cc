"""How firmly a choice stands when the weights or the limits are other ones.

The utility is a sum of weight x gain: where two trials' lines cross, another takes the lead. So
everything here is exact in the measured gains, but for `shares`, which samples the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.priorities import Limit
from core.study import Study, Trial
from core.verdict import limits
from core.verdict.robust.gain_table import SAME, GainTable, gain_table

# Weights drawn evenly from all that add up to 1: the share of each winner is known to 0.5 points.
DRAWS = 10_000


@dataclass(frozen=True)
class WeightFlip:
    """At the weight `at` of one word, the other weights kept, `trial_id` takes the lead; `now` is
    what the word weighs, `rising` whether `at` lies above that.
    """

    word: str
    now: float
    at: float
    trial_id: str

    @property
    def rising(self) -> bool:
        """Whether the word must weigh more."""
        return self.at >= self.now


@dataclass(frozen=True)
class LimitFlip:
    """With `limit` at the value `at` instead of its own, `trial_id` takes the lead; `None` when no
    trial would pass. A limit is `tightened` beyond what the winner has, or loosened so far that a
    better trial passes.
    """

    limit: Limit
    at: float
    trial_id: str | None
    tightened: bool


@dataclass(frozen=True)
class Robustness:
    """`shares` (trial id, share of all weightings in which it wins, limits kept) has the largest
    first; `words` were weighted.
    """

    words: tuple[str, ...]
    shares: tuple[tuple[str, float], ...]
    weight_flips: tuple[WeightFlip, ...]
    limit_flips: tuple[LimitFlip, ...]

    def share(self, trial_id: str) -> float:
        """The share of all weightings in which this trial wins."""
        return dict(self.shares).get(trial_id, 0.0)


def robustness(study: Study, winner: Trial) -> Robustness:
    """How firmly `winner`, the recommended trial of an anchored study, stands."""
    table = gain_table(study, winner)
    return Robustness(
        table.words,
        _shares(table),
        tuple(_weight_flips(table)),
        tuple(_limit_flips(study, winner, table.scores)),
    )


def _shares(table: GainTable) -> tuple[tuple[str, float], ...]:
    """Wins over weights drawn evenly from the simplex (Dirichlet with ones); level trials share."""
    if not table.words:
        return ()
    drawn = np.random.default_rng(12).dirichlet(np.ones(len(table.words)), DRAWS)
    scores = drawn @ table.gains.T
    ahead = scores >= scores.max(axis=1, keepdims=True) - SAME
    wins = (ahead / ahead.sum(axis=1, keepdims=True)).mean(axis=0)
    shares = [(trial.id, float(share)) for trial, share in zip(table.trials, wins, strict=True)]
    return tuple(sorted(shares, key=lambda pair: -pair[1]))


def _weight_flips(table: GainTable) -> Iterator[WeightFlip]:
    """For each word the nearest weight above and below at which another trial is level: between
    them the choice stays.
    """
    behind = table.gains - table.gains[table.row]
    for column, word in enumerate(table.words):
        now = float(table.weights[column])
        above: list[tuple[float, int]] = []
        below: list[tuple[float, int]] = []
        for rival in table.rivals:
            slope = float(behind[rival, column])
            if abs(slope) <= SAME:
                continue
            at = now - float(table.weights @ behind[rival]) / slope
            # A rival that catches up with more weight, or one that does with less.
            if slope > 0:
                above.append((max(at, now), rival))
            elif at >= 0:
                below.append((min(at, now), rival))
        if below:
            at, rival = max(below)
            yield WeightFlip(word, now, at, table.trials[rival].id)
        if above:
            at, rival = min(above)
            yield WeightFlip(word, now, at, table.trials[rival].id)


def _limit_flips(study: Study, winner: Trial, scores: dict[str, float]) -> list[LimitFlip]:
    """For each hard limit: the winner's own value, below which it fails, and the nearest value that
    would let a better trial pass.
    """
    hard = study.priorities.limits
    flips = []
    for limit in hard:
        others = tuple(other for other in hard if other != limit)
        candidates = [
            (trial, value)
            for trial in study.done()
            if not limits.failures(trial, others)
            and (value := limits.known(trial, limit.metric)) is not None
        ]
        own = limits.known(winner, limit.metric)
        if own is not None:
            tighter = [(t, v) for t, v in candidates if _stricter(limit, v, own)]
            best = max(tighter, key=lambda pair: scores[pair[0].id], default=None)
            flips.append(LimitFlip(limit, own, best[0].id if best else None, True))
        better = [
            (trial, value)
            for trial, value in candidates
            if not limit.passes(value) and scores[trial.id] > scores[winner.id] + SAME
        ]
        if better:
            nearest = min(better, key=lambda pair: abs(pair[1] - limit.value))
            flips.append(LimitFlip(limit, nearest[1], nearest[0].id, False))
    return flips


def _stricter(limit: Limit, value: float, own: float) -> bool:
    return value < own if limit.relation == "<=" else value > own
