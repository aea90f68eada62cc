"""A study as a busy machine gives it: every process ran at another speed, the true ratios known.

Each trial is timed in turns with the unchanged model in a process of its own, whose speed differs
by up to a factor of ten from the others'. Only the paired ratios can be right.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core import priorities, techniques
from core.caution import Caution
from core.measurement import Measurement
from core.metrics import BY_NAME
from core.plan import Plan
from core.study import Study, Trial

LATENCY_S, RATE, BYTES = 1.0, 100.0, 20e6
# plan -> (true ratio of latency to the unchanged model, share of its bytes, KL in nats, slowness)
TRUTH: dict[str, tuple[float, float, float, float]] = {
    "weight-int8": (0.80, 0.65, 0.001, 0.3),
    "gptq": (0.60, 0.45, 0.019, 4.0),
    "kv-cache": (1.05, 1.00, 0.0005, 0.5),
    "prune-mlp": (0.85, 0.85, 0.180, 0.2),
    "w8a8": (0.78, 0.66, 0.006, 2.5),
}
ROUNDS = 24
WINDOWS = 16


def noisy_study(base: Study, seed: int = 0, disturbed: bool = True) -> Study:
    """The baseline and TRUTH's plans; `disturbed` gives each the caution of a busy machine."""
    random = np.random.default_rng(seed)
    notes = (Caution("load", "other processes took 1.50 of 2 cores").line,) if disturbed else ()
    case = base.case
    trials = [_baseline(case, random)]
    for number, (words, truth) in enumerate(TRUTH.items(), 1):
        trials.append(_candidate(case, number, words, truth, random))
    shown = tuple(replace(trial, notes=notes, study_id=base.id, attempt=1) for trial in trials)
    return replace(base, priorities=priorities.parse([], []), trials=shown)


def timed(
    name: str, ours: np.ndarray, theirs: np.ndarray | None = None, origin: str = "measured"
) -> Measurement:
    """A measurement of pairs, float [n] and [n]."""
    reference = () if theirs is None else tuple(map(float, theirs))
    unit, samples = BY_NAME[name].unit, tuple(map(float, ours))
    return Measurement(name, samples, unit, origin, "timed in turns", reference=reference)


def _exact(name: str, value: float) -> Measurement:
    return Measurement(name, (value,), BY_NAME[name].unit, "measured", "counted")


def _rounds(random: np.random.Generator, slowness: float) -> np.ndarray:
    return slowness * random.lognormal(0.0, 0.05, ROUNDS)


def _baseline(case, random: np.random.Generator) -> Trial:  # type: ignore[no-untyped-def]
    moments = _rounds(random, 2.0)
    found = (
        timed("latency_s", LATENCY_S * moments),
        timed("tokens_per_s", RATE / moments),
        _exact("model_bytes", BYTES),
        _exact("concurrency", 1.0),
    )
    return Trial("t0", "s", Plan(case), "done", measurements=found)


def _candidate(  # type: ignore[no-untyped-def]
    case, number: int, words: str, truth: tuple[float, float, float, float],
    random: np.random.Generator,
) -> Trial:  # fmt: skip
    ratio, share, nats, slowness = truth
    moments = _rounds(random, slowness)
    ours = ratio * moments * random.lognormal(0.0, 0.01, ROUNDS)
    windows = nats * random.lognormal(0.0, 0.3, WINDOWS)
    found = (
        timed("latency_s", LATENCY_S * ours, LATENCY_S * moments),
        timed("tokens_per_s", RATE / ours, RATE / moments),
        _exact("model_bytes", BYTES * share),
        _exact("concurrency", 1.0),
        replace(timed("kl_nats", windows, np.zeros(WINDOWS)), pooled=float(windows.mean())),
    )
    plan = Plan(case, (techniques.parse(words),))
    return Trial(f"t{number}", "s", plan, "done", measurements=found)
