"""Verdicts above the floor of two correct programs, and which floor belongs to which metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.margin import NAMES as MARGINS
from core.measurement import Measurement, unavailable
from core.metrics import BY_NAME, metric
from core.study import Trial
from core.techniques.cache.kv_cache import KvCache
from core.verdict.against import floor_between, floor_of
from core.verdict.compare import compare
from core.verdict.judge import judge

Make = Callable[..., Trial]


def loss(value: float, spread: float, name: str = "kl_nats", n: int = 8) -> Measurement:
    """`value` on average over `n` windows that differ by `spread` at most."""
    step = [2 * i / (n - 1) - 1 for i in range(n)]
    defined = 0.0 if name.startswith("kl") else 1.0
    return Measurement(
        name,
        tuple(value + spread * one for one in step),
        metric(name).unit,
        "measured",
        "8 windows",
        pooled=value,
        bounds=(value - spread, value + spread),
        reference=(defined,) * n,
    )


def defined(name: str) -> Measurement:
    value = 0.0 if name == "kl_nats" else 1.0
    return Measurement(
        name, (value,), metric(name).unit, "measured", "", pooled=value, bounds=(value, value)
    )


@pytest.mark.parametrize(
    ("name", "value", "spread", "floor", "verdict"),
    [
        ("kl_nats", 5.4e-4, 5e-5, 0.0, "worse"),
        ("kl_nats", 5.4e-4, 5e-5, 6e-4, "within noise"),
        # The middle is above the floor, the interval is not.
        ("kl_nats", 6.1e-4, 2e-4, 5.9e-4, "within noise"),
        ("kl_nats", 5e-2, 5e-3, 6e-4, "worse"),
        ("top1_agreement", 0.990, 0.002, 0.0, "worse"),
        ("top1_agreement", 0.990, 0.002, 0.012, "within noise"),
        ("top1_agreement", 0.900, 0.002, 0.012, "worse"),
    ],
)
def test_a_loss_is_one_only_where_its_interval_lies_above_the_floor(
    name: str, value: float, spread: float, floor: float, verdict: str
) -> None:
    found = judge(metric(name), loss(value, spread, name), defined(name), "turns", floor)
    assert found.verdict == verdict
    assert ("two correct programs of the unchanged model" in found.why) == (floor > 0)
    if verdict == "within noise":
        assert found.why.startswith("within the floor of ")


def test_bounds_without_windows_are_held_against_the_floor_too() -> None:
    stated = Measurement("kl_nats", (), "nat", "projected", "", pooled=4e-4, bounds=(3e-4, 5e-4))
    none = Measurement("kl_nats", (), "nat", "projected", "", pooled=0.0, bounds=(0.0, 0.0))
    assert judge(metric("kl_nats"), stated, none).verdict == "worse"
    assert judge(metric("kl_nats"), stated, none, floor=5e-4).verdict == "within noise"
    assert judge(metric("kl_nats"), stated, none, floor=1e-4).verdict == "worse"


def test_a_difference_of_two_losses_below_the_floor_is_noise() -> None:
    ours, theirs = loss(5.0e-4, 2e-5), loss(6.0e-4, 2e-5)
    assert judge(metric("kl_nats"), ours, theirs, "common").verdict == "better"
    assert judge(metric("kl_nats"), ours, theirs, "common", 6e-4).verdict == "within noise"


def trial_of(make: Any, techniques: tuple[Any, ...], *found: Measurement) -> Trial:
    trial: Trial = make(techniques, found)
    return trial


def test_the_floor_is_the_far_end_of_what_the_unchanged_model_measured(
    synthetic_trial: Any,
) -> None:
    own = Measurement("kl_floor_nats", (), "nat", "measured", "", pooled=4e-4, bounds=(3e-4, 5e-4))
    same = Measurement("agreement_floor", (), "", "measured", "", pooled=0.99, bounds=(0.98, 1.0))
    unchanged = trial_of(synthetic_trial, (), own, same)
    assert floor_of(unchanged, "kl_nats") == 5e-4
    assert floor_of(unchanged, "top1_agreement") == pytest.approx(0.02)
    assert floor_of(unchanged, "perplexity") == 0.0
    other = trial_of(synthetic_trial, (KvCache(),), loss(5.4e-4, 5e-5))
    assert floor_of(other, "kl_nats") == 0.0
    assert floor_between(other, unchanged, "kl_nats") == 5e-4


def test_a_floor_that_was_not_measured_is_none(synthetic_trial: Any) -> None:
    gone = unavailable("kl_floor_nats", "nat", "the second program is another model")
    assert floor_of(trial_of(synthetic_trial, (), gone), "kl_nats") == 0.0
    assert floor_of(trial_of(synthetic_trial, ()), "kl_nats") == 0.0


def test_compare_shows_the_floor_as_a_row_without_a_verdict(synthetic_trial: Any) -> None:
    own = Measurement("kl_floor_nats", (), "nat", "measured", "", pooled=4e-4, bounds=(3e-4, 6e-4))
    unchanged = trial_of(synthetic_trial, (), own, defined("kl_nats"))
    cached = trial_of(synthetic_trial, (KvCache(),), loss(5.4e-4, 5e-5))
    table = compare((unchanged, cached), unchanged.id)
    row, judged = table.row("kl_floor_nats"), table.row("kl_nats")
    assert row is not None
    assert judged is not None
    assert row.better == ""
    assert row.cells[0].value == 4e-4
    assert judged.cells[1].verdict == "within noise"
    assert "0.000600 nat" in judged.cells[1].why


def test_every_floor_belongs_to_a_metric_and_weighs_nothing() -> None:
    for one, floor in ((one, one.floor) for one in BY_NAME.values() if one.floor):
        assert one.unit == BY_NAME[floor].unit
        assert BY_NAME[floor].priority == ""
        assert floor not in MARGINS
