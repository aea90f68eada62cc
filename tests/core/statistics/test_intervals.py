"""Intervals at the ends of the range, and quick quantiles against numpy's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.statistics.interleave import means_of_blocks
from core.statistics.intervals import _quantiles, mover_ratio
from core.statistics.paired import paired_interval, resampled_means


def test_a_ratio_beyond_the_range_of_floats_is_infinite_not_an_error() -> None:
    low, high = mover_ratio(1e300, (1e299, 1e301), 5e-324, (5e-324, 5e-324))
    assert low > 1e300
    assert high == math.inf
    assert mover_ratio(2.0, (1.0, 4.0), 1.0, (1.0, 1.0)) == pytest.approx((1.0, 4.0))


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 2, 7, 80])
def test_quantiles_of_resamples_are_numpys(n: int, q: float) -> None:
    random = np.random.default_rng(n)
    values, chosen = random.integers(1, 9, n) / 7, random.integers(0, n, (50, n))
    wanted = np.quantile(values[chosen], q, axis=1)
    np.testing.assert_allclose(_quantiles(values, chosen, q), wanted, rtol=1e-12)


def test_resampled_means_scatter_as_theory_says_and_equal_values_do_not() -> None:
    values = np.random.default_rng(3).normal(5, 1, (2, 40))
    for draws in (10_000, 60_000):  # by counts, and draw by draw
        drawn = resampled_means(values, "kl_nats", draws)
        assert drawn.shape == (2, draws)
        np.testing.assert_allclose(drawn.mean(axis=1), values.mean(axis=1), atol=0.01)
        np.testing.assert_allclose(drawn.std(axis=1), values.std(axis=1) / 40**0.5, rtol=0.05)
        equal = resampled_means(np.full((1, 40), 0.1), "kl_nats", draws)
        assert equal.min() == equal.max() == 0.1


def test_blocks_of_neighbours_cover_every_value_once() -> None:
    values = np.arange(403.0)
    found = means_of_blocks(values, 40)
    assert len(found) == 40
    assert found[0] == 4.5
    assert sorted(found) == list(found)
    assert means_of_blocks(values[:40], 40) == pytest.approx(values[:40])


def test_windows_of_huge_values_have_the_interval_of_small_ones() -> None:
    values = np.random.default_rng(5).lognormal(0, 1, 24)
    small, large = (
        paired_interval("nats_per_byte", tuple(values * scale), (0.0,) * 24)
        for scale in (1.0, 2.0**900)
    )
    assert small is not None
    assert large is not None
    assert np.array(large.difference_bounds) / 2.0**900 == pytest.approx(small.difference_bounds)
