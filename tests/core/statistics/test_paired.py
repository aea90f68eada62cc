"""Paired intervals and tests against worked examples of papers, scipy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from core.statistics import paired
from core.statistics.paired import (
    DRAWS,
    MIN_WINDOWS,
    bca_bounds,
    paired_interval,
    resampled_means,
    student_quantile,
    widened_quantile,
)
from core.statistics.proportions import bonett_price, mcnemar_exact, tango, wilson


def zeros_and_ones(
    both: int, gained: int, lost: int, neither: int
) -> tuple[tuple[float, ...], ...]:
    """Candidate's and baseline's items of a 2 x 2 table."""
    ours = (1.0,) * (both + gained) + (0.0,) * (lost + neither)
    theirs = (1.0,) * both + (0.0,) * gained + (1.0,) * lost + (0.0,) * neither
    return ours, theirs


# Cavo et al. (2012), complete response before and after consolidation therapy, as worked out in
# Fagerland, Lydersen & Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8.
CAVO = (59, 6, 16, 80)


def test_tangos_interval_is_that_of_the_worked_example() -> None:
    assert tango(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_bonett_and_prices_ratio_is_that_of_the_worked_example() -> None:
    assert bonett_price(59, 6, 16) == pytest.approx((0.7579, 0.9910), abs=5e-5)


def test_mcnemars_exact_p_is_that_of_the_worked_example() -> None:
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=5e-7)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (3, 3), (9, 2), (40, 61)])
def test_mcnemars_exact_p_is_scipys_binomial_test(gained: int, lost: int) -> None:
    theirs = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_exact(gained, lost) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(("gained", "lost", "n"), [(6, 16, 161), (7, 1, 21), (1, 40, 60)])
def test_tangos_bounds_are_where_the_constrained_likelihood_says(
    gained: int, lost: int, n: int
) -> None:
    """The share of `lost` that maximises the likelihood at a given difference, found by search."""
    for bound in tango(gained, lost, n):

        def unlikely(share: float, difference: float = bound) -> float:
            other = 1 - 2 * share - difference
            return -(
                gained * math.log(share + difference)
                + lost * math.log(share)
                + (n - gained - lost) * math.log(other)
            )

        low, high = max(0.0, -bound) + 1e-12, (1 - bound) / 2 - 1e-12
        share = optimize.minimize_scalar(
            unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
        variance = (2 * share + bound - bound**2) / n
        score = ((gained - lost) / n - bound) / math.sqrt(variance)
        assert abs(score) == pytest.approx(1.959964, rel=1e-4)


def test_tango_without_a_discordant_item_still_has_a_width() -> None:
    # Tango (1998): with none discordant the bounds are +- z^2 / (n + z^2).
    z2 = 1.959964**2
    assert tango(0, 0, 450) == pytest.approx((-z2 / (450 + z2), z2 / (450 + z2)))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_item_intervals_hold_their_estimates_and_turn_around(
    both: int, gained: int, lost: int, neither: int
) -> None:
    n = both + gained + lost + neither
    if not n:
        return
    low, high = tango(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert tango(lost, gained, n) == pytest.approx((-high, -low), abs=1e-9)
    if both + lost and both + gained:
        low, high = bonett_price(both, gained, lost)
        assert 0 <= low <= (both + gained) / (both + lost) <= high
        assert bonett_price(both, lost, gained) == pytest.approx((1 / high, 1 / low), rel=1e-9)


def test_items_are_judged_by_tango_and_bonett_price() -> None:
    ours, theirs = zeros_and_ones(*CAVO)
    found = paired_interval("task_accuracy", ours, theirs)
    assert found is not None
    assert (found.n, found.unit, found.method) == (161, "items", "Tango 1998")
    assert found.difference == pytest.approx(-10 / 161)
    assert found.difference_bounds == tango(6, 16, 161)
    assert found.ratio == pytest.approx(65 / 75)
    assert found.ratio_bounds == bonett_price(59, 6, 16)


def test_a_baseline_that_is_never_right_has_no_ratio() -> None:
    found = paired_interval("accuracy", (1.0, 0.0, 0.0, 1.0), (0.0,) * 4)
    assert found is not None
    assert found.ratio is None
    assert found.ratio_bounds is None
    assert found.difference == 0.5


def test_flips_and_agreement_are_shares_against_a_constant() -> None:
    flips = paired_interval("flips", (1.0,) * 4 + (0.0,) * 96, (0.0,) * 100)
    agreement = paired_interval("top1_agreement", (0.0,) * 4 + (1.0,) * 96, (1.0,) * 100)
    assert flips is not None
    assert agreement is not None
    assert flips.difference_bounds == wilson(4, 100)
    assert flips.ratio is None
    low, high = wilson(96, 100)
    assert agreement.difference_bounds == pytest.approx((low - 1, high - 1))
    assert agreement.ratio_bounds == (low, high)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 23, 95, 1000])
def test_students_quantile_is_scipys(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-10)
    assert student_quantile(freedom, 0.8) == pytest.approx(stats.t.ppf(0.9, freedom), rel=1e-10)


def test_few_windows_reach_farther_than_many() -> None:
    assert widened_quantile(5) > widened_quantile(8) > widened_quantile(50) > 1.96
    assert widened_quantile(8) == pytest.approx(math.sqrt(8 / 7) * stats.t.ppf(0.975, 7))
    assert widened_quantile(5000) == pytest.approx(1.96, abs=0.002)


def test_the_bounds_are_scipys_bca_at_the_widened_level() -> None:
    random = np.random.default_rng(3)
    base = random.normal(2.0, 0.3, 40)
    ours = base + random.gamma(2, 0.02, 40)
    found = paired_interval("nats_per_byte", tuple(ours.tolist()), tuple(base.tolist()))
    assert found is not None

    def change(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(a.mean(axis) / b.mean(axis))

    def difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(a.mean(axis) - b.mean(axis))

    level = 1 - 2 * stats.norm.cdf(-widened_quantile(40))
    for statistic, bounds in ((difference, found.difference_bounds), (change, found.ratio_bounds)):
        theirs = stats.bootstrap(
            (ours, base),
            statistic,
            paired=True,
            n_resamples=DRAWS,
            method="BCa",
            confidence_level=level,
            rng=np.random.default_rng(8),
        ).confidence_interval
        width = theirs.high - theirs.low
        assert bounds == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)
    assert found.difference == pytest.approx(ours.mean() - base.mean())
    assert found.ratio == pytest.approx(ours.mean() / base.mean())


def test_an_extreme_acceleration_asks_for_the_extreme_draws_at_most() -> None:
    without = np.array([0.0] * 9 + [1e6])
    drawn = np.linspace(0, 1, 1001)
    low, high = bca_bounds(0.5, drawn, without)
    assert 0 <= low < high <= 1


def test_pairing_finds_what_two_independent_samples_would_not() -> None:
    random = np.random.default_rng(4)
    base = random.normal(1.0, 0.4, 24)
    ours = base + 0.01 + random.normal(0, 0.005, 24)
    found = paired_interval("nats_per_byte", tuple(ours.tolist()), tuple(base.tolist()))
    assert found is not None
    assert found.difference_bounds[0] > 0
    assert stats.ttest_ind(ours, base).pvalue > 0.5
    t = stats.ttest_rel(ours, base).confidence_interval()
    assert found.difference_bounds == pytest.approx((t.low, t.high), rel=0.15)


def test_perplexity_is_paired_by_its_logarithms() -> None:
    nats = np.array([1.1, 1.3, 0.9, 1.2, 1.6, 1.0, 1.4, 1.2])
    more = nats + np.array([0.01, 0.02, 0.015, 0.01, 0.02, 0.012, 0.018, 0.011])
    found = paired_interval(
        "perplexity", tuple(np.exp(more).tolist()), tuple(np.exp(nats).tolist())
    )
    assert found is not None
    assert found.ratio == pytest.approx(math.exp(more.mean() - nats.mean()))
    assert found.difference == pytest.approx(math.exp(more.mean()) - math.exp(nats.mean()))
    assert found.ratio_bounds is not None
    assert 1 < found.ratio_bounds[0] < found.ratio < found.ratio_bounds[1] < 1.02 * found.ratio
    t = stats.t.interval(0.95, 7, (more - nats).mean(), stats.sem(more - nats))
    assert found.ratio_bounds == pytest.approx(np.exp(t), abs=0.002)


def test_a_divergence_has_a_difference_and_no_ratio() -> None:
    found = paired_interval("kl_nats", (0.1, 0.2, 0.3, 0.2, 0.15, 0.22), (0.0,) * 6)
    assert found is not None
    assert found.ratio is None
    assert 0.1 <= found.difference_bounds[0] < found.difference < found.difference_bounds[1] <= 0.3


def test_equal_values_differ_by_exactly_nothing() -> None:
    values = (3.1, 3.2, 3.3, 3.4, 3.5)
    found = paired_interval("perplexity", values, values)
    assert found is not None
    assert found.difference_bounds == (0.0, 0.0)
    assert found.ratio_bounds == (1.0, 1.0)


@pytest.mark.parametrize(
    ("samples", "reference"),
    [
        ((), ()),
        ((1.5,) * 6, ()),
        ((1.5,) * 6, (1.5,) * 5),
        ((1.5,) * (MIN_WINDOWS - 1), (1.4,) * (MIN_WINDOWS - 1)),
    ],
)
def test_what_is_not_paired_has_no_interval(
    samples: tuple[float, ...], reference: tuple[float, ...]
) -> None:
    assert paired_interval("perplexity", samples, reference) is None


def test_a_perplexity_that_is_not_above_zero_has_no_interval() -> None:
    assert paired_interval("perplexity", (1.5, 2.0, 0.0, 1.1, 1.2), (1.5,) * 5) is None


def test_all_rows_are_resampled_by_the_same_windows() -> None:
    values = np.stack([np.arange(9.0), 2 * np.arange(9.0) + 1])
    means = resampled_means(values, "x", 500)
    assert means.shape == (2, 500)
    assert np.allclose(means[1], 2 * means[0] + 1)
    assert np.array_equal(means, resampled_means(values, "x", 500))
    assert not np.array_equal(means, resampled_means(values, "y", 500))


def test_long_samples_are_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(5, 1, (2, 300_000))
    means = resampled_means(values, draws=20)
    assert means.shape == (2, 20)
    assert means.std(axis=1) == pytest.approx(np.full(2, 1 / math.sqrt(300_000)), rel=0.6)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 450), (441, 450), (446, 450), (450, 450)])
def test_the_interval_of_a_share_is_scipys_wilson_interval(k: int, n: int) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_the_wilson_interval_solves_its_own_equation() -> None:
    # The bounds p are where |441/450 - p| equals z sqrt(p (1 - p) / n).
    for p in wilson(441, 450):
        assert abs(441 / 450 - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / 450))


def test_paired_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A small count of the experiment of `python -m tests.evidence paired-coverage`."""
    random = np.random.default_rng(11)
    held = 0
    for _ in range(150):
        base = random.gamma(8, 0.15, 8)
        ours = base * 1.01 + random.normal(0, 0.02, 8)
        found = paired.paired_interval("nats_per_byte", tuple(ours.tolist()), tuple(base.tolist()))
        assert found is not None
        held += found.difference_bounds[0] <= 0.012 <= found.difference_bounds[1]
    assert held >= 134
