"""The smallest change of all weights together that changes a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from core.study import Study, Trial
from core.verdict.robust.gain_table import SAME, gain_table


@dataclass(frozen=True)
class Nearest:
    """The weights (word, weight) nearest to the study's, by Euclidean distance, at which `trial_id`
    is level with the winner.
    """

    weights: tuple[tuple[str, float], ...]
    distance: float
    trial_id: str


def nearest(study: Study, winner: Trial) -> Nearest | None:
    """The point nearest to the weights at which a rival of `winner`, the recommended trial of an
    anchored study, is level, no weight below 0; None when no weights would change the choice.

    It is the projection on each rival's plane, with every set of words at 0 tried (there are at
    most six words).
    """
    table = gain_table(study, winner)
    words, weights = table.words, table.weights
    best: Nearest | None = None
    for rival in table.rivals:
        step = table.gains[rival] - table.gains[table.row]
        for count in range(len(words)):
            for zeros in combinations(range(len(words)), count):
                point = _on_plane(weights, step, zeros)
                if point is None:
                    continue
                distance = float(np.linalg.norm(point - weights))
                if best is None or distance < best.distance - SAME:
                    told = tuple(zip(words, map(float, point), strict=True))
                    best = Nearest(told, distance, table.trials[rival].id)
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
