"""How firmly a choice stands when the weights or the limits are other ones.

The utility is a sum of weight x gain: where two trials' lines cross, another takes the lead. So
everything here is exact in the measured gains, but for `shares`, which samples the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from core.priorities import Limit
from core.study import Study, Trial
from core.verdict import limits, utility

# Weights drawn evenly from all that add up to 1: the share of each winner is known to 0.5 points.
DRAWS = 10_000
# Utilities that differ by less are the same: plans whose gains are equal.
SAME = 1e-9


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
class Nearest:
    """The weights (word, weight) nearest to the study's, by Euclidean distance, at which `trial_id`
    is level with the winner.
    """

    weights: tuple[tuple[str, float], ...]
    distance: float
    trial_id: str


@dataclass(frozen=True)
class Robustness:
    """`shares` (trial id, share of all weightings in which it wins, limits kept) has the largest
    first; `words` were weighted; `nearest` is None when no weights would change the choice.
    """

    words: tuple[str, ...]
    shares: tuple[tuple[str, float], ...]
    weight_flips: tuple[WeightFlip, ...]
    limit_flips: tuple[LimitFlip, ...]
    nearest: Nearest | None

    def share(self, trial_id: str) -> float:
        """The share of all weightings in which this trial wins."""
        return dict(self.shares).get(trial_id, 0.0)


def robustness(study: Study, winner: Trial) -> Robustness:
    """How firmly `winner`, the recommended trial of an anchored study, stands."""
    gains = utility.gains(study, utility.judged(study))
    words = tuple(word for word, _ in utility.judged(study))
    hard = study.priorities.limits
    feasible = [trial for trial in study.done() if not limits.failures(trial, hard)]
    table = _table(gains, feasible, words)
    row = next(index for index, trial in enumerate(feasible) if trial.id == winner.id)
    weights = np.array([study.priorities.weight(word) for word in words])
    rivals = [index for index in range(len(feasible)) if _differs(table, index, row)]
    return Robustness(
        words,
        _shares(table, feasible),
        tuple(_weight_flips(table, weights, words, row, rivals, feasible)),
        tuple(_limit_flips(study, winner, utility.utilities(study))),
        _nearest(table, weights, words, row, rivals, feasible),
    )


def _table(
    gains: dict[str, dict[str, float]], trials: Sequence[Trial], words: Sequence[str]
) -> np.ndarray:
    """Gains [trials, words]."""
    rows = [[gains[trial.id][word] for word in words] for trial in trials]
    return np.array(rows, dtype=float).reshape(len(trials), len(words))


def _differs(table: np.ndarray, index: int, row: int) -> bool:
    return index != row and bool(np.abs(table[index] - table[row]).max(initial=0.0) > SAME)


def _shares(table: np.ndarray, trials: Sequence[Trial]) -> tuple[tuple[str, float], ...]:
    """Wins over weights drawn evenly from the simplex (Dirichlet with ones); level trials share."""
    if not table.shape[1]:
        return ()
    drawn = np.random.default_rng(12).dirichlet(np.ones(table.shape[1]), DRAWS)
    scores = drawn @ table.T
    ahead = scores >= scores.max(axis=1, keepdims=True) - SAME
    wins = (ahead / ahead.sum(axis=1, keepdims=True)).mean(axis=0)
    shares = [(trial.id, float(share)) for trial, share in zip(trials, wins, strict=True)]
    return tuple(sorted(shares, key=lambda pair: -pair[1]))


def _weight_flips(
    table: np.ndarray,
    weights: np.ndarray,
    words: Sequence[str],
    row: int,
    rivals: Sequence[int],
    trials: Sequence[Trial],
) -> list[WeightFlip]:
    """For each word the nearest weight above and below at which another trial is level: between
    them the choice stays.
    """
    flips = []
    for column, word in enumerate(words):
        now = float(weights[column])
        above: list[tuple[float, int]] = []
        below: list[tuple[float, int]] = []
        for rival in rivals:
            lead = float(weights @ (table[row] - table[rival]))
            slope = float(table[rival, column] - table[row, column])
            if abs(slope) <= SAME:
                continue
            at = now + lead / slope
            # A rival that catches up with more weight, or one that does with less.
            if slope > 0:
                above.append((max(at, now), rival))
            elif at >= 0:
                below.append((min(at, now), rival))
        if below:
            at, rival = max(below)
            flips.append(WeightFlip(word, now, at, trials[rival].id))
        if above:
            at, rival = min(above)
            flips.append(WeightFlip(word, now, at, trials[rival].id))
    return flips


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


def _nearest(
    table: np.ndarray,
    weights: np.ndarray,
    words: Sequence[str],
    row: int,
    rivals: Sequence[int],
    trials: Sequence[Trial],
) -> Nearest | None:
    """The point nearest to the weights at which a rival is level, no weight below 0: the projection
    on each rival's plane, with every set of words at 0 tried (there are at most six words).
    """
    best: Nearest | None = None
    for rival in rivals:
        step = table[rival] - table[row]
        for count in range(len(words)):
            for zeros in combinations(range(len(words)), count):
                point = _on_plane(weights, step, zeros)
                if point is None:
                    continue
                distance = float(np.linalg.norm(point - weights))
                if best is None or distance < best.distance - SAME:
                    told = tuple(zip(words, map(float, point), strict=True))
                    best = Nearest(told, distance, trials[rival].id)
    return best


def _on_plane(weights: np.ndarray, step: np.ndarray, zeros: Sequence[int]) -> np.ndarray | None:
    """The nearest point with step @ point = 0 and these words at 0; None when a weight would be
    negative, or all would be 0.
    """
    free = np.ones(len(weights), dtype=bool)
    free[list(zeros)] = False
    direction, point = np.where(free, step, 0.0), np.where(free, weights, 0.0)
    length = float(direction @ direction)
    if length <= SAME:
        return None
    point = point - direction * float(direction @ point) / length
    if float(point.min()) < -SAME or float(point.max()) <= SAME:
        return None
    return np.maximum(point, 0.0)
