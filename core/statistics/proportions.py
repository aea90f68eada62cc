"""Intervals and a test of proportions: of one, and of two on the same items."""

from __future__ import annotations

import math

Bounds = tuple[float, float]
Z = 1.959964


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact conditional test (1947; binomial form).

    `gained` items are right only with the candidate, `lost` ones only with the baseline; under no
    difference each is as likely as the other.
    """
    discordant = gained + lost
    ways = sum(math.comb(discordant, k) for k in range(min(gained, lost) + 1))
    return min(1.0, ways / 2 ** (discordant - 1)) if discordant else 1.0


def tango(gained: int, lost: int, n: int, z: float = Z) -> Bounds:
    """Score interval of the difference of paired proportions, (gained - lost) / n.

    Tango (1998), "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17: 891-908, equations 8 and 9.
    """
    estimate = (gained - lost) / n

    def score(difference: float) -> float:
        a = 2 * n
        b = -gained - lost + (2 * n - gained + lost) * difference
        c = -lost * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * share + difference * (1 - difference))
        distance = gained - lost - n * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    def solve(inside: float, outside: float) -> float:
        """The point between both where |score| reaches z."""
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(score(middle)) < z:
                inside = middle
            else:
                outside = middle
        return (inside + outside) / 2

    return solve(estimate, -1.0), solve(estimate, 1.0)


def bonett_price(both: int, gained: int, lost: int, z: float = Z) -> Bounds:
    """Hybrid Wilson interval of the ratio of paired proportions, (both + gained) / (both + lost).

    Bonett & Price (2006), "Confidence intervals for a ratio of binomial proportions based on
    paired data", Statistics in Medicine 25: 3039-3047. The baseline must have one success.
    """
    total = both + gained + lost
    ours, theirs = both + gained, both + lost
    spread = math.sqrt((gained + lost + 2) / ((ours + 1) * (theirs + 1)))
    apart = sum(math.sqrt((1 - (x + 1) / (total + 2)) / (x + 1)) for x in (ours, theirs))
    scaled = z * spread / apart
    low, high = wilson(ours, total, scaled)
    base_low, base_high = wilson(theirs, total, scaled)
    return low / base_high, high / base_low


def wilson(successes: int, n: int, z: float = Z) -> Bounds:
    """Score interval of a proportion, 95 % unless `z` says otherwise (Wilson 1927).

    It ends exactly at 0 without a success and at 1 without a failure, as the formula does before
    rounding.
    """
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
