"""One honest number: its median, its interval against SciPy and against order statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from core.measurement import (
    Measurement,
    bootstrap_mean,
    bootstrap_median,
    bootstrap_ratio,
    quantile_interval,
    unavailable,
)

FINITE = st.floats(-1e9, 1e9)


def measured(*samples: float, **more: object) -> Measurement:
    return Measurement("ttft_s", samples, "s", "measured", "by hand", **more)  # type: ignore[arg-type]


@given(st.lists(FINITE, min_size=1, max_size=9))
def test_the_value_is_the_median_by_sorting(samples: list[float]) -> None:
    ranked, half = sorted(samples), len(samples) // 2
    middle = ranked[half] if len(samples) % 2 else (ranked[half - 1] + ranked[half]) / 2
    assert measured(*samples).value == pytest.approx(middle)
    assert measured(*samples).n == len(samples)


def test_a_pooled_value_is_shown_instead_of_the_median() -> None:
    assert measured(1.0, 2.0, 9.0, pooled=4.0).value == 4.0
    assert measured(1.0, 2.0, 9.0, pooled=0.0).value == 0.0


def test_quantiles_are_scipys() -> None:
    samples = np.random.default_rng(1).lognormal(size=37)
    for q in (0.0, 0.05, 0.5, 0.95, 1.0):
        expected = stats.mstats.mquantiles(samples, [q], alphap=1, betap=1)[0]
        assert measured(*samples.tolist()).quantile(q) == pytest.approx(expected)


def test_the_interval_of_the_median_is_scipys_percentile_bootstrap() -> None:
    samples = np.random.default_rng(2).lognormal(size=41)
    low, high = bootstrap_median(samples)
    theirs = stats.bootstrap(
        (samples,), np.median, n_resamples=9999, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    spread = np.ptp(samples)
    assert low == pytest.approx(theirs.low, abs=0.02 * spread)
    assert high == pytest.approx(theirs.high, abs=0.02 * spread)


def test_the_interval_of_the_median_is_near_the_exact_order_statistics() -> None:
    samples = np.sort(np.random.default_rng(4).normal(10, 1, size=101))
    low, high = bootstrap_median(samples)
    rank = int(stats.binom.ppf(0.025, 101, 0.5))
    assert samples[rank - 4] <= low <= samples[rank + 4]
    assert samples[100 - rank - 4] <= high <= samples[100 - rank + 4]


def test_the_interval_of_the_mean_is_scipys_percentile_bootstrap() -> None:
    samples = np.random.default_rng(5).exponential(size=60)
    theirs = stats.bootstrap(
        (samples,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(6)
    ).confidence_interval
    assert bootstrap_mean(samples) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_the_interval_of_a_ratio_resamples_pairs_as_scipy_does() -> None:
    random = np.random.default_rng(7)
    bytes_ = random.uniform(500, 2500, size=40)
    nats = bytes_ * random.normal(0.8, 0.1, size=40)
    theirs = stats.bootstrap(
        (nats, bytes_),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(8),
    ).confidence_interval
    assert bootstrap_ratio(nats, bytes_) == pytest.approx((theirs.low, theirs.high), rel=0.01)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(9)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_median(random.normal(size=31), draws=400)
        hits += low <= 0.0 <= high
    assert 0.88 <= hits / 200 <= 1.0


@given(st.lists(FINITE, min_size=3, max_size=12))
def test_an_interval_lies_within_the_samples_and_is_the_same_each_time(s: list[float]) -> None:
    first, again = measured(*s).interval(), measured(*s).interval()
    assert first is not None
    assert first == again
    assert min(s) <= first[0] <= first[1] <= max(s)


def test_too_few_samples_have_no_interval() -> None:
    assert measured(1.0).interval() is None
    assert measured(1.0, 2.0).interval() is None
    assert measured(1.0, 2.0, 3.0).interval() is not None


def test_stated_bounds_are_the_interval() -> None:
    assert measured(1.0, 2.0, 3.0, bounds=(0.5, 9.0)).interval() == (0.5, 9.0)
    assert measured(1.0, bounds=(0.5, 9.0)).interval() == (0.5, 9.0)
    assert measured(1.0, 2.0, 3.0, pooled=2.5).interval() is None


def test_an_unavailable_number_has_no_value_and_a_reason() -> None:
    found = unavailable("energy_j_per_token", "J", "no counter here", "env-1", "2026-11-21")
    assert (found.value, found.quantile(0.5), found.interval(), found.n) == (None, None, None, 0)
    assert found.method == "no counter here"
    assert found.origin == "unavailable"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"origin": "unavailable", "samples": (1.0,)}, "exactly when the origin is unavailable"),
        ({"origin": "unavailable", "pooled": 0.0}, "exactly when the origin is unavailable"),
        ({"origin": "measured"}, "exactly when the origin is unavailable"),
        ({"origin": "guessed", "samples": (1.0,)}, "is not one of measured"),
        ({"origin": "measured", "samples": (1.0, math.nan)}, "a sample is not finite"),
        ({"origin": "measured", "samples": (math.inf,)}, "a sample is not finite"),
        ({"origin": "projected", "pooled": math.nan}, "the value is not finite"),
        ({"origin": "projected", "pooled": 1.0, "bounds": (0.0, math.inf)}, "bounds"),
        ({"origin": "projected", "pooled": 1.0, "bounds": (math.nan, 1.0)}, "bounds"),
        ({"origin": "projected", "pooled": 1.0, "bounds": (2.0, 1.0)}, "bounds"),
    ],
)
def test_a_number_that_is_not_honest_cannot_be_made(fields: dict[str, object], words: str) -> None:
    given_fields = {"metric": "m", "samples": (), "unit": "", "method": "", **fields}
    with pytest.raises(ValueError, match=words):
        Measurement(**given_fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "q"), [(72, 0.95), (200, 0.95), (400, 0.99), (25, 0.5), (9, 0.3)])
def test_the_interval_of_a_quantile_is_bounded_by_binomial_ranks(n: int, q: float) -> None:
    samples = tuple(float(i) for i in range(n))
    found = quantile_interval(samples[::-1], q)
    low = int(stats.binom.ppf(0.025, n, q))
    low -= stats.binom.cdf(low, n, q) > 0.025
    high = int(stats.binom.ppf(0.975, n, q))
    assert found == (None if low < 0 or high >= n else (samples[low], samples[high]))


def test_bounds_beyond_every_float_are_refused() -> None:
    with pytest.raises(OverflowError):
        Measurement("ttft_s", (), "s", "projected", "", pooled=1.0, bounds=(0.0, 10**400))


def test_too_few_samples_bound_no_high_quantile() -> None:
    assert quantile_interval(tuple(range(71)), 0.95) is None
    assert quantile_interval(tuple(range(367)), 0.99) is None


def judged(data: str, method: str = "16 windows", n: int = 3) -> Measurement:
    return Measurement("kl_nats", (0.1,) * n, "nat", "measured", method, data=data)


def test_the_digest_of_the_data_decides_whether_two_were_judged_on_the_same() -> None:
    assert judged("aa", "16 windows").same_data(judged("aa", "measured elsewhere: 16 windows"))
    assert not judged("aa").same_data(judged("bb"))
    assert not judged("aa").same_data(judged("aa", n=4))


def test_of_rows_without_a_digest_the_method_decides() -> None:
    assert judged("").same_data(judged("aa"))
    assert not judged("", "8 windows").same_data(judged("aa"))
