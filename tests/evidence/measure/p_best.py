"""How often is a recommended plan truly the best when it is called proven, and does P(best) say how
often a plan is the best?

    python -m tests.evidence p-best [--count 200]

Studies of the unchanged model and three plans, each timed in turns with it in a process of its own
speed. Latency and throughput come from the same rounds and weigh as much as size and quality. A
process also differs from its copy by what core.verdict.judge.FLOORS allows. The kinds of study: 24
calm rounds, 8 rounds, rounds that drift by half, rounds with outliers, no rounds in turns (numbers
taken apart), and plans that are all equal. Exits with 1 when a choice called proven is wrong in
more than 5 % of a kind's studies (equal plans: called proven in more than 10 %), or P(best) of
half of the plans, sorted by it, is further than 0.1 from the share that is truly best.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace

import numpy as np

from core import priorities, techniques
from core.catalogue import models, workloads
from core.machine import targets
from core.measurement import Measurement
from core.plan import Case, Plan
from core.study import Study, Trial
from core.verdict.judge import FLOORS
from core.verdict.recommend import recommend
from tests.core.verdict.noisy_study import timed

PLANS = ("weight-int8", "gptq", "w8a8")
NATS = 0.01
WINDOWS = 16


@dataclass(frozen=True)
class Kind:
    """What the rounds of a study are like; `spread` is that of the plans' true log ratios."""

    rounds: int = 24
    noise: float = 0.03
    spread: float = 0.02
    drift: float = 0.0
    outliers: float = 0.0
    pairing: str = "turns"


KINDS = {
    "calm": Kind(),
    "8 rounds": Kind(rounds=8),
    "drift": Kind(drift=0.5),
    "outliers": Kind(outliers=0.15),
    "apart": Kind(spread=0.1, pairing="apart"),
    "equal plans": Kind(spread=0.0),
}


def logs(random: np.random.Generator, kind: Kind) -> np.ndarray:
    """What disturbs each round, in the logarithm of its time, float [rounds]."""
    found = random.normal(0, kind.noise, kind.rounds)
    hit = random.random(kind.rounds) < kind.outliers
    return found + hit * random.exponential(0.5, kind.rounds)


def simulate(random: np.random.Generator, kind: Kind, case: Case) -> tuple[Study, str]:
    """(a study, the id of its truly best trial)."""
    floor = math.log1p(FLOORS[kind.pairing]) / 1.96
    truth = {"t0": 0.0}
    trials = [Trial("t0", "s", Plan(case), "done", measurements=numbers(random, kind, 0.0, NATS))]
    for number, words in enumerate(PLANS, 1):
        ratio, nats = random.normal(-0.3, kind.spread), NATS * math.exp(random.normal(0, 0.2))
        nats = NATS if kind.spread == 0 else nats
        truth[f"t{number}"] = -2 * ratio / math.log(2) - nats / 0.05
        seen = numbers(random, kind, ratio + random.normal(0, floor), nats)
        plan = Plan(case, (techniques.parse(words),))
        trials.append(Trial(f"t{number}", "s", plan, "done", measurements=seen))
    weights = priorities.parse(["latency=1", "throughput=1", "size=1", "quality=1"], [])
    return Study("s", case, weights, trials=tuple(trials)), max(truth, key=truth.__getitem__)


def numbers(
    random: np.random.Generator, kind: Kind, ratio: float, nats: float
) -> tuple[Measurement, ...]:
    """What a trial measured whose time is exp(`ratio`) times the unchanged model's."""
    machine = np.zeros(kind.rounds)
    if kind.pairing == "turns":
        machine = random.normal(0, 0.5) + np.linspace(0, kind.drift, kind.rounds)
    ours = np.exp(ratio + machine + logs(random, kind))
    theirs = np.exp(machine + logs(random, kind)) if kind.pairing == "turns" else None
    windows = nats * random.lognormal(-0.045, 0.3, WINDOWS)
    loss = timed("kl_nats", windows, np.zeros(WINDOWS))
    return (
        timed("latency_s", ours, theirs),
        timed("tokens_per_s", 100 / ours, None if theirs is None else 100 / theirs),
        Measurement("model_bytes", (2e7,), "B", "measured", "counted"),
        replace(loss, pooled=float(windows.mean())),
    )


def judge_kind(
    random: np.random.Generator, kind: Kind, case: Case, count: int
) -> tuple[float, float, list[tuple[float, float]]]:
    """(share called proven, share wrongly called so, (P(best), 1 where truly best) of each)."""
    from core.verdict.chances import chances

    proven = wrong = 0
    told: list[tuple[float, float]] = []
    for _ in range(count):
        study, best = simulate(random, kind, case)
        advice = recommend(study)
        proven += advice.proven
        wrong += advice.proven and advice.trial_id != best
        shares = chances(study, study.trials)
        assert shares is not None
        told += [(share, float(name == best)) for name, share in shares.items() if name != "t0"]
    return proven / count, wrong / count, told


def calibration(told: list[tuple[float, float]], parts: int = 5) -> list[tuple[float, float]]:
    """(mean P(best), share truly best) of equal parts of the plans, sorted by P(best)."""
    ordered = np.array(sorted(told))
    return [
        (float(part[:, 0].mean()), float(part[:, 1].mean()))
        for part in np.array_split(ordered, parts)
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=200)


def main(options: argparse.Namespace) -> int:
    """Print the shares and, last, one sentence."""
    count = options.count
    case = Case(models.resolve("pycode"), targets.resolve("local"), workloads.resolve("chat"))
    random = np.random.default_rng(20261128)
    missed, worst, furthest = [], 0.0, 0.0
    for name, kind in KINDS.items():
        proven, wrong, told = judge_kind(random, kind, case, count)
        print(f"{name}: called proven in {proven:.1%} of studies", end="")
        if kind.spread == 0:
            print(", where no plan is better than another")
            failed = proven > 0.1
        else:
            parts = calibration(told)
            far = max(abs(said - true) for said, true in parts)
            shown = ", ".join(f"{said:.2f}: {true:.2f}" for said, true in parts)
            print(f", wrongly in {wrong:.1%}; P(best): truly best {shown}")
            worst, furthest = max(worst, wrong), max(furthest, far)
            failed = wrong > 0.05 or far > 0.1
        if failed:
            missed.append(name)
    print(
        f"Over {count} simulated studies of each kind, a choice called proven is wrong in at most"
        f" {worst:.1%} of studies and P(best) is at most {furthest:.2f} from the share truly best"
        f" ({'missed for ' + ', '.join(missed) if missed else 'reached'})."
    )
    return 1 if missed else 0
