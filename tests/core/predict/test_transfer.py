"""Measured here, projected to a device of a known class: published programs lie inside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.catalogue import published
from core.catalogue.published import PublishedRow
from core.machine import targets
from core.measurement import Measurement
from core.metrics import BY_NAME
from core.plan import Plan
from core.predict import predict, project
from core.predict.estimate import TIMES
from core.predict.published import in_its_metric, plan_of, predicted
from core.predict.roofline import Span
from core.study import Trial
from core.target import Target

HERE = Target(
    "local", "This machine", "cpu", "local", 32_000_000_000, 26.5e9, (("bf16", 2e12),), local=True
)
ROWS = [row for row in published.rows() if row.metric.endswith("_tokens_per_s")]
# How many times as long as is usual of this machine's limits a trial took here.
QUOTIENTS = (0.5, 1.0, 2.0)
NOISE = 1.05


def measured_here(plan: Plan, quotient: float) -> Trial:
    """The plan, measured on HERE at `quotient` times what is usual there."""
    here = Plan(replace(plan.case, target=HERE), plan.techniques)
    found = []
    for usual in predict(here):
        if usual.metric in TIMES and usual.value:
            higher = BY_NAME[usual.metric].better == "higher"
            value = usual.value / quotient if higher else usual.value * quotient
            samples = tuple(value * (1 + 0.01 * k) for k in (-1, -0.5, 0, 0.5, 1))
            found.append(
                Measurement(usual.metric, samples, usual.unit, "measured", "timed", "env-1")
            )
    return Trial("t", "s", here, "done", measurements=tuple(found))


def projected(row: PublishedRow, quotient: float) -> Span:
    plan = plan_of(row)
    span = in_its_metric(row, project(measured_here(plan, quotient), plan.case.target))
    assert span is not None
    return span


@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_published_rate_is_inside_whatever_this_machine_reached(
    row: PublishedRow, quotient: float
) -> None:
    direct, span = predicted(row), projected(row, quotient)
    assert direct is not None
    if direct.low <= row.value <= direct.high:
        assert span.low <= row.value <= span.high
    assert span.high / span.low <= 3.0 * max(quotient, 1 / quotient) * NOISE
    assert span.low <= span.value <= span.high


def test_a_trial_twice_as_slow_here_is_twice_as_slow_there() -> None:
    row = next(row for row in ROWS if row.id == "m4-8b-q4km")
    usual, slow = projected(row, 1.0), projected(row, 2.0)
    assert slow.value == pytest.approx(usual.value / 2, rel=0.02)
    assert slow.low == pytest.approx(usual.low / 2, rel=0.02)
    assert slow.high == pytest.approx(usual.high, rel=0.02)


def test_the_method_says_what_was_carried_over_and_what_is_typical() -> None:
    row = ROWS[0]
    plan = plan_of(row)
    times = {one.metric: one for one in project(measured_here(plan, 1.0), plan.case.target)}
    assert "x measured here / usual of this machine's limits" in times["tpot_s"].method
    assert "published programs on a" in times["tpot_s"].method
    assert times["tpot_s"].origin == "projected"


def test_a_gain_measured_here_counts_once() -> None:
    """Four-bit codes that gained more here than is usual gain as much more there."""
    target = targets.resolve("apple-m4")
    row = next(row for row in ROWS if row.id == "m4-8b-q4km")
    trials = [measured_here(plan_of(row), quotient) for quotient in (1.0, 0.8)]
    values = [
        next(one.value for one in project(trial, target) if one.metric == "tpot_s") or 0.0
        for trial in trials
    ]
    assert values[1] / values[0] == pytest.approx(0.8, rel=0.02)
