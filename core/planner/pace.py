"""The pace of a study: what its trials took so far, what the rest will take, and what to measure
next so that a promised end is kept.

Arithmetic alone: whoever runs the trials owns the clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from core.plan import Plan, Technique

# What a technique costs before one like it was seen, as shares of what a trial takes beside its
# techniques: a step of training, a calibration, and anything else. Low rather than high: an
# estimate that is too high would leave out what fits.
STEP, CALIBRATION, OTHER = 0.03, 0.5, 0.05
# Every plan but the unchanged one is timed and judged in turns with it.
TURNS = 1.6
# Of the time that serving takes, what its timed rounds do: the rest loads and warms up.
TIMED = 0.5
# The stages that only the first trial pays for.
ONCE = ("calibrate",)
SERVE = "serve"


@dataclass(frozen=True)
class Took:
    """Seconds of one ended trial by stage; what a technique did is under its name."""

    plan: Plan
    stages: Mapping[str, float]

    @property
    def preparing(self) -> float:
        """Of its techniques."""
        return sum(self.stages.get(name, 0.0) for name in {t.name for t in self.plan.techniques})

    @property
    def rest(self) -> float:
        """Beside its techniques and what is done once."""
        once = sum(self.stages.get(name, 0.0) for name in ONCE)
        return sum(self.stages.values()) - self.preparing - once


@dataclass(frozen=True)
class Cost:
    """Seconds that a trial is expected to take, of them in timed rounds."""

    seconds: float
    rounds_s: float

    def with_rounds(self, share: float) -> float:
        """Seconds with this share of the rounds."""
        return self.seconds - (1 - share) * self.rounds_s


@dataclass(frozen=True)
class Choice:
    """The plans that fit, in the order to measure them, with which share of the preset's rounds;
    empty when none does.
    """

    plans: tuple[Plan, ...]
    rounds: float = 1.0


def costs(plans: Sequence[Plan], took: Sequence[Took]) -> list[Cost]:
    """What each of the plans will take when all are measured in this order; a prefix that was made
    before is loaded. Zero while nothing has ended.
    """
    if not took:
        return [Cost(0.0, 0.0) for _ in plans]
    changed = [trial for trial in took if trial.plan.techniques]
    like = changed or took
    rest = median(trial.rest for trial in like) * (1.0 if changed else TURNS)
    serving = median(trial.stages.get(SERVE, 0.0) for trial in like) * (1.0 if changed else TURNS)
    prepared = {plan.techniques[:n] for plan in (t.plan for t in took) for n in _costly(plan)}
    expected = []
    for plan in plans:
        loaded = max((n for n in _costly(plan) if plan.techniques[:n] in prepared), default=0)
        preparing = sum(_technique(technique, took, rest) for technique in plan.techniques[loaded:])
        prepared |= {plan.techniques[:n] for n in _costly(plan)}
        expected.append(Cost(rest + preparing, TIMED * serving))
    return expected


def choose(
    plans: Sequence[Plan], took: Sequence[Took], left_s: float, fewest_rounds: float
) -> Choice:
    """Which plans to measure, and how thoroughly, in `left_s` seconds; all of them in full when
    they fit, else with fewer rounds, down to the share `fewest_rounds`, else fewer plans.

    The latest go first, but as long as others are there none that is the last of its kinds, unless
    it trains: training that does not fit goes before anything else does.
    """
    kept = list(plans)
    seen = {technique.kind for trial in took for technique in trial.plan.techniques}
    while kept:
        expected = costs(kept, took)
        if sum(cost.seconds for cost in expected) <= left_s:
            return Choice(tuple(kept))
        shortest = sum(cost.with_rounds(fewest_rounds) for cost in expected)
        if shortest <= left_s:
            rounds = sum(cost.rounds_s for cost in expected)
            share = 1 - (sum(cost.seconds for cost in expected) - left_s) / rounds
            return Choice(tuple(kept), max(share, fewest_rounds))
        kept.remove(_least(kept, seen))
    return Choice(())


def _least(plans: Sequence[Plan], seen: Collection[str]) -> Plan:
    """The plan to leave out first."""
    for plan in reversed(plans):
        others = {
            technique.kind for other in plans if other is not plan for technique in other.techniques
        }
        trains = any(technique.trains for technique in plan.techniques)
        if trains or {technique.kind for technique in plan.techniques} <= others | set(seen):
            return plan
    return plans[-1]


def _costly(plan: Plan) -> list[int]:
    """Lengths of the plan's prefixes that end with training or calibration."""
    return [
        n
        for n, technique in enumerate(plan.techniques, 1)
        if technique.trains or technique.calibrates
    ]


def _technique(technique: Technique, took: Sequence[Took], rest: float) -> float:
    """Seconds of one technique: as it took before, else as its like did, else a share of `rest`."""
    seen = [
        (earlier, trial.stages[earlier.name])
        for trial in took
        for earlier in trial.plan.techniques
        if earlier.name in trial.stages
    ]
    same = [seconds for earlier, seconds in seen if earlier == technique]
    if same:
        return max(same)
    if technique.trains:
        rates = [seconds / earlier.training_steps for earlier, seconds in seen if earlier.trains]
        rate = median(rates) if rates else STEP * rest
        return rate * technique.training_steps
    like = [
        s
        for earlier, s in seen
        if not earlier.trains and earlier.calibrates == technique.calibrates
    ]
    if like:
        return median(like)
    return (CALIBRATION if technique.calibrates else OTHER) * rest


def whole_rounds(share: float, rounds: int, fewest: int) -> int:
    """This share of the preset's rounds, at least the fewest."""
    return max(fewest, math.ceil(share * rounds - 1e-9))
