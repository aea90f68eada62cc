"""One number with everything that makes it honest: samples, unit, origin, method, interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.condition import AS_ASKED, Condition

ORIGINS = ("measured", "projected", "estimated", "published", "unavailable")


@dataclass(frozen=True)
class Measurement:
    """A metric of one trial.

    `samples` are the raw values; their median is the value unless `pooled` gives it (a mean over
    tokens, say). `bounds` is a stated 95 % interval, for projections and pooled values; without it
    the interval is bootstrapped. Origin `unavailable` has no samples and says why in `method`.
    `condition` says what was varied where the workload was not served as it is asked. `reference`
    are the baseline's values of the same metric, taken in the same process between ours:
    reference[i] belongs to the pair of samples[i]. `data` is the digest of the text, tasks or
    images that quality was judged on, empty where nothing was judged and in older rows.
    """

    metric: str
    samples: tuple[float, ...]
    unit: str
    origin: str
    method: str
    environment: str = ""
    taken_at: str = ""
    pooled: float | None = None
    bounds: tuple[float, float] | None = None
    condition: Condition = AS_ASKED
    reference: tuple[float, ...] = ()
    data: str = ""

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"origin {self.origin!r} is not one of {', '.join(ORIGINS)}")
        if (self.origin == "unavailable") != (not self.samples and self.pooled is None):
            raise ValueError(
                f"{self.metric}: samples must be empty exactly when the origin is unavailable"
            )
        if not all(map(math.isfinite, self.samples + self.reference)):
            raise ValueError(f"{self.metric}: a sample is not finite")
        if self.pooled is not None and not math.isfinite(self.pooled):
            raise ValueError(f"{self.metric}: the value is not finite")
        if self.bounds is not None and not (
            all(map(math.isfinite, self.bounds)) and self.bounds[0] <= self.bounds[1]
        ):
            raise ValueError(f"{self.metric}: the bounds are not finite, or in the wrong order")

    @property
    def value(self) -> float | None:
        """The number to show; None when unavailable."""
        if self.pooled is not None:
            return self.pooled
        return float(np.median(self.samples)) if self.samples else None

    @property
    def n(self) -> int:
        """How many raw samples."""
        return len(self.samples)

    def same_data(self, other: Measurement) -> bool:
        """Whether both were judged on the same text, tasks or images, item by item. Where one of
        them does not say, the method decides: it names the data and how they were cut."""
        if self.n != other.n:
            return False
        if self.data and other.data:
            return self.data == other.data
        return self.method == other.method

    def quantile(self, q: float) -> float | None:
        """Empirical quantile of the samples; None when there are none."""
        return float(np.quantile(self.samples, q)) if self.samples else None

    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the value: the stated bounds, else percentile bootstrap of the median
        (2,000 draws).

        None with fewer than three samples and no stated bounds: too few to say.
        """
        if self.bounds is not None:
            return self.bounds
        if self.pooled is not None or self.n < 3:
            return None
        return _around_median(self.samples)


@lru_cache(maxsize=2048)
def _around_median(samples: tuple[float, ...]) -> tuple[float, float]:
    return bootstrap_median(np.array(samples))


def bootstrap_median(samples: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the median of `samples` float [n]; fixed seed, so a
    number shows the same interval everywhere (Efron & Tibshirani 1993, chapter 13).
    """
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(samples), size=(draws, len(samples)))
    medians = np.median(samples[chosen], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


def quantile_interval(samples: tuple[float, ...], q: float) -> tuple[float, float] | None:
    """Distribution-free interval of the `q` quantile at 95 % or more, between two of the sorted
    samples (Hahn & Meeker 1991, section 5.2).

    None where too few samples lie on either side: a p95 needs 72, a p99 368.
    """
    n = len(samples)
    below = 0.0
    low = high = None
    for rank in range(n + 1):
        # P(exactly `rank` samples lie below the quantile)
        below += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(rank + 1)
            - math.lgamma(n - rank + 1)
            + rank * math.log(q)
            + (n - rank) * math.log1p(-q)
        )
        if below <= 0.025:
            low = rank
        if high is None and below >= 0.975:
            high = rank
    if low is None or high is None or high >= n:
        return None
    ordered = sorted(samples)
    return ordered[low], ordered[high]


def bootstrap_mean(samples: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean of `samples` float [n], fixed seed."""
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(samples), size=(draws, len(samples)))
    low, high = np.quantile(samples[chosen].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def bootstrap_ratio(
    numerators: np.ndarray, denominators: np.ndarray, draws: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of sum(numerators) / sum(denominators), both float [n],
    drawn in pairs, fixed seed.
    """
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(numerators), size=(draws, len(numerators)))
    ratios = numerators[chosen].sum(axis=1) / denominators[chosen].sum(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def unavailable(
    metric: str, unit: str, why: str, environment: str = "", taken_at: str = ""
) -> Measurement:
    """A number that cannot be had here, with the reason."""
    return Measurement(metric, (), unit, "unavailable", why, environment, taken_at)
