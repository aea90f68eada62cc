"""Verdicts: against scipy's bootstrap, by hand for stated bounds, and words for what is unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from core.measurement import Measurement, unavailable
from core.metrics import metric
from core.statistics.intervals import mover_difference, ratio_of_medians
from core.verdict.judge import judge


def timed(name: str, samples: np.ndarray, origin: str = "measured") -> Measurement:
    return Measurement(name, tuple(samples.tolist()), metric(name).unit, origin, "timed")


def test_the_ratio_interval_agrees_with_scipys_bootstrap() -> None:
    random = np.random.default_rng(3)
    above, below = random.lognormal(0.1, 0.2, 40), random.lognormal(0, 0.2, 31)
    low, high = ratio_of_medians(above, below)
    wanted = stats.bootstrap(
        (above, below),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        method="percentile",
        n_resamples=9999,
        rng=1,
    ).confidence_interval
    assert low == pytest.approx(wanted.low, rel=0.02)
    assert high == pytest.approx(wanted.high, rel=0.02)


def test_two_runs_of_the_same_thing_are_mostly_within_noise() -> None:
    random = np.random.default_rng(5)
    verdicts = [
        judge(
            metric("tpot_s"),
            timed("tpot_s", random.lognormal(-5, 0.1, 20)),
            timed("tpot_s", random.lognormal(-5, 0.1, 20)),
        ).verdict
        for _ in range(200)
    ]
    assert verdicts.count("within noise") >= 180


@pytest.mark.parametrize(
    ("name", "factor", "verdict"),
    [
        ("tpot_s", 0.5, "better"),
        ("tpot_s", 2.0, "worse"),
        ("tokens_per_s", 2.0, "better"),
        ("tokens_per_s", 0.5, "worse"),
    ],
)
def test_a_clear_difference_is_named_in_the_metrics_direction(
    name: str, factor: float, verdict: str
) -> None:
    base = np.random.default_rng(1).lognormal(0, 0.05, 12)
    found = judge(metric(name), timed(name, base * factor), timed(name, base))
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(factor)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= factor <= found.high


def test_too_few_unlike_or_missing_numbers_get_no_verdict() -> None:
    one = metric("ttft_s")
    two, many = timed("ttft_s", np.array([1.0, 1.1])), timed("ttft_s", np.linspace(1, 2, 9))
    assert judge(one, two, many).verdict == "too few runs"
    projected = Measurement(
        "ttft_s", (), "s", "projected", "roofline", pooled=1.0, bounds=(0.5, 2.0)
    )
    found = judge(one, projected, many)
    assert found.verdict == "not comparable"
    assert "projected" in found.why
    energy = metric("energy_j_per_token")
    gone = unavailable("energy_j_per_token", "J", "no counter here")
    assert "no counter here" in judge(energy, gone, gone).why


def test_counted_sizes_are_compared_exactly() -> None:
    size = metric("model_bytes")
    small, large = (timed("model_bytes", np.array([value])) for value in (10.0, 20.0))
    assert judge(size, small, large).verdict == "better"
    assert judge(size, large, small).verdict == "worse"
    assert judge(size, small, small).verdict == "same"


def test_mover_is_the_square_root_of_the_summed_squares() -> None:
    low, high = mover_difference(5.0, (4.0, 7.0), 2.0, (1.0, 4.0))
    assert low == pytest.approx(3 - math.hypot(1, 2))
    assert high == pytest.approx(3 + math.hypot(2, 1))
    assert mover_difference(5.0, (5.0, 5.0), 2.0, (2.0, 2.0)) == (3.0, 3.0)


def in_turns(ratio: float, seed: int, n: int = 12, spread: float = 0.02) -> Measurement:
    random = np.random.default_rng(seed)
    drift = np.exp(np.linspace(0, 0.5, n))
    ours, theirs = (drift * random.lognormal(0, spread, n) * factor for factor in (ratio, 1.0))
    return Measurement(
        "tpot_s", tuple(ours), "s", "measured", "timed", reference=tuple(theirs.tolist())
    )


def test_numbers_taken_in_turns_are_judged_by_their_own_pairs() -> None:
    elsewhere = timed("tpot_s", np.full(12, 40.0))
    found = judge(metric("tpot_s"), in_turns(1.08, 1), elsewhere, "turns")
    assert found.verdict == "worse"
    assert found.ratio == pytest.approx(1.08, abs=0.03)
    assert "in turns" in found.why
    assert judge(metric("tpot_s"), in_turns(1.08, 1), elsewhere).verdict == "better"


def test_two_trials_that_took_turns_with_one_plan_are_judged_by_it() -> None:
    slow_hour = in_turns(1.0, 2)
    slowed = Measurement(
        "tpot_s",
        tuple(3 * one for one in slow_hour.samples),
        "s",
        "measured",
        "timed",
        reference=tuple(3 * one for one in slow_hour.reference),
    )
    found = judge(metric("tpot_s"), slowed, in_turns(1.0, 3), "common")
    assert found.verdict == "within noise"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high


@pytest.mark.parametrize(("pairing", "ratio"), [("turns", 1.008), ("apart", 1.07)])
def test_a_difference_below_the_floor_is_no_difference(pairing: str, ratio: float) -> None:
    steady = Measurement("tpot_s", (ratio,) * 20, "s", "measured", "timed", reference=(1.0,) * 20)
    found = judge(metric("tpot_s"), steady, timed("tpot_s", np.ones(20)), pairing)
    assert found.verdict == "within noise"
    assert "can differ by" in found.why


def test_few_pairs_fall_back_to_samples_taken_apart() -> None:
    few = in_turns(2.0, 4, n=5)
    assert (
        judge(metric("tpot_s"), few, timed("tpot_s", np.full(5, 0.1)), "turns").verdict == "worse"
    )


def test_quality_has_no_floor() -> None:
    good = Measurement("perplexity", (), "", "measured", "", pooled=10.0, bounds=(9.99, 10.01))
    better = Measurement("perplexity", (), "", "measured", "", pooled=9.9, bounds=(9.89, 9.91))
    assert judge(metric("perplexity"), better, good).verdict == "better"


def of_windows(shift: float, seed: int, method: str = "16 windows") -> Measurement:
    """Perplexity of windows that differ more from each other than the two models do."""
    random = np.random.default_rng(seed)
    theirs = np.exp(np.random.default_rng(7).normal(2.5, 0.6, 16))
    ours = theirs * np.exp(shift + random.normal(0, 0.002, 16))
    return Measurement(
        "perplexity",
        tuple(ours),
        "",
        "measured",
        method,
        pooled=float(np.exp(np.log(ours).mean())),
        bounds=(8.0, 18.0),
        reference=tuple(theirs),
    )


def test_quality_is_judged_on_the_same_windows_however_much_these_differ() -> None:
    unchanged = of_windows(0.0, 1)
    found = judge(metric("perplexity"), of_windows(0.01, 2), unchanged, "turns")
    assert found.verdict == "worse"
    assert found.ratio == pytest.approx(math.exp(0.01), rel=0.002)
    assert "16 windows" in found.why


def test_two_candidates_are_paired_by_the_windows_that_both_saw() -> None:
    first, second = of_windows(0.010, 3), of_windows(0.014, 4)
    assert judge(metric("perplexity"), first, second, "common").verdict == "better"
    other = of_windows(0.014, 4, "other windows")
    assert judge(metric("perplexity"), first, other, "common").verdict == "within noise"
