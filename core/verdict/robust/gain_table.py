"""The gains of a study's trials as a table, which everything that changes weights starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.study import Study, Trial
from core.verdict import limits, utility

# Utilities that differ by less are the same: plans whose gains are equal.
SAME = 1e-9


@dataclass(frozen=True)
class GainTable:
    """`gains` [trials, words] of the trials that pass the study's limits, `weights` [words] of the
    study; `row` is that of the winner. `scores` are the utilities of all finished trials by id.
    """

    words: tuple[str, ...]
    trials: tuple[Trial, ...]
    gains: np.ndarray
    weights: np.ndarray
    row: int
    scores: dict[str, float]

    @cached_property
    def rivals(self) -> tuple[int, ...]:
        """Rows of the trials whose gains are not the winner's."""
        apart = np.abs(self.gains - self.gains[self.row]).max(axis=1, initial=0.0)
        return tuple(map(int, np.flatnonzero(apart > SAME)))


def gain_table(study: Study, winner: Trial) -> GainTable:
    """Of an anchored study in which `winner` is recommended, over every word that can be judged."""
    pairs = utility.judged(study)
    words = tuple(word for word, _ in pairs)
    gains = utility.gains(study, pairs)
    weight = study.priorities.weight
    hard = study.priorities.limits
    trials = tuple(trial for trial in study.done() if not limits.failures(trial, hard))
    rows = [[gains[trial.id][word] for word in words] for trial in trials]
    return GainTable(
        words,
        trials,
        np.array(rows, dtype=float).reshape(len(trials), len(words)),
        np.array([weight(word) for word in words]),
        next(index for index, trial in enumerate(trials) if trial.id == winner.id),
        {
            trial_id: sum(weight(word) * gain for word, gain in by_word.items())
            for trial_id, by_word in gains.items()
        },
    )
