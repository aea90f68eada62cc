"""Ratios of interleaved pairs, against scipy's signed-rank test and simulated machines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from core.statistics.interleave import MIN_PAIRS, critical_rank, quotient, ratio_interval


def pairs(seed: int, n: int, ratio: float = 1.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of two plans on a machine that drifts, wavers and is sometimes disturbed."""
    random = np.random.default_rng(seed)
    drift = np.exp(np.linspace(0, random.normal(0, 0.2), 2 * n))
    waver = np.zeros(2 * n)
    for i in range(1, 2 * n):
        waver[i] = 0.8 * waver[i - 1] + random.normal(0, 0.01)
    spikes = np.where(random.random(2 * n) < 0.05, 1 + random.exponential(0.5, 2 * n), 1.0)
    seconds = 0.01 * drift * np.exp(waver + random.normal(0, 0.02, 2 * n)) * spikes
    turns = seconds.reshape(n, 2)
    turns[1::2] = turns[1::2, ::-1]
    return tuple(turns[:, 0] * ratio), tuple(turns[:, 1])


@pytest.mark.parametrize("n", [6, 7, 12, 20, 50])
def test_the_interval_holds_exactly_what_the_signed_rank_test_does_not_reject(n: int) -> None:
    ours, theirs = pairs(n, n, 1.1)
    found = ratio_interval(ours, theirs)
    assert found is not None
    logs = np.log(ours) - np.log(theirs)
    for inside, outside in ((1 + 1e-9, 1 - 1e-9), (1 - 1e-9, 1 + 1e-9)):
        bound = found[1] if inside > 1 else found[2]
        accepted = stats.wilcoxon(logs - np.log(bound * inside), method="exact").pvalue
        rejected = stats.wilcoxon(logs - np.log(bound * outside), method="exact").pvalue
        assert rejected <= 0.05 < accepted


def test_the_estimate_is_the_median_of_all_means_of_two() -> None:
    ours, theirs = (1.0, 2.0, 4.0, 8.0, 16.0, 3.0), (1.0,) * 6
    logs = np.log(ours)
    means = [(a + b) / 2 for i, a in enumerate(logs) for b in logs[i:]]
    found = ratio_interval(ours, theirs)
    assert found is not None
    assert found[0] == pytest.approx(np.exp(np.median(means)))


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 4), (10, 9), (20, 53), (25, 90)])
def test_the_rank_is_the_one_of_the_published_tables(n: int, rank: int) -> None:
    # Wilcoxon's critical values at two-sided 5 %: 0, 3, 8, 52, 89; the rank counts from one.
    assert critical_rank(n) == rank


def test_a_plan_against_itself_seldom_seems_different() -> None:
    wrong = 0
    for seed in range(400):
        found = ratio_interval(*pairs(seed, 20))
        assert found is not None
        wrong += not found[1] <= 1 <= found[2]
    assert wrong <= 0.07 * 400


def test_a_slowdown_of_five_percent_is_found_on_an_unsteady_machine() -> None:
    right = 0
    for seed in range(200):
        found = ratio_interval(*pairs(seed, 20, 1.05))
        assert found is not None
        right += found[1] > 1
    assert right >= 0.9 * 200


def test_many_pairs_are_taken_in_blocks_and_agree_with_few() -> None:
    ours, theirs = pairs(3, 5000, 1.02)
    found = ratio_interval(ours, theirs)
    assert found is not None
    assert found[1] < 1.02 < found[2]
    assert found[2] - found[1] < 0.01


def test_one_pair_in_five_gone_wrong_moves_the_ratio_little() -> None:
    ours, theirs = pairs(4, 20)
    broken = tuple(50 * value if i % 5 == 0 else value for i, value in enumerate(ours))
    found = ratio_interval(broken, theirs)
    assert found is not None
    assert found[0] == pytest.approx(1.0, abs=0.05)


def test_fewer_than_six_pairs_have_no_interval() -> None:
    assert ratio_interval((1.0,) * (MIN_PAIRS - 1), (1.0,) * (MIN_PAIRS - 1)) is None


@pytest.mark.parametrize(
    ("ours", "theirs"), [((1.0,) * 6, (1.0,) * 7), ((1.0,) * 5 + (0.0,), (1.0,) * 6)]
)
def test_what_cannot_be_paired_is_refused(
    ours: tuple[float, ...], theirs: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"cannot be paired|above 0"):
        ratio_interval(ours, theirs)


def test_two_ratios_to_one_baseline_combine_as_independent_errors_do() -> None:
    above, below = (2.0, 1.9, 2.1), (1.0, 0.95, 1.05)
    ratio, low, high = quotient(above, below)
    assert ratio == pytest.approx(2.0)
    random = np.random.default_rng(0)
    widths = [(np.log(b[2]) - np.log(b[1])) / 2 / 1.96 for b in (above, below)]
    drawn = random.normal(np.log(2), widths[0], 100_000) - random.normal(0, widths[1], 100_000)
    assert (np.log(low), np.log(high)) == pytest.approx(
        np.quantile(drawn, (0.025, 0.975)), rel=0.03
    )
