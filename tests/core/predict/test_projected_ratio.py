"""Two projections are compared by their ratio: what the model of the target gets wrong for both
cancels, what was measured here does not get lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core import techniques
from core.catalogue import models, workloads
from core.machine import targets
from core.measurement import Measurement
from core.metrics import BY_NAME
from core.plan import Case, Plan
from core.predict import project
from core.predict.projection import RATIO, ratio_error
from core.study import Trial
from core.target import Target
from core.verdict.against import against
from core.verdict.comparison import UNPROJECTED

HERE = Target(
    "local", "This machine", "cpu", "local", 32_000_000_000, 26.5e9, (("bf16", 2e12),), local=True
)
TIMES = {
    "ttft_s": 0.080, "tpot_s": 0.031, "latency_s": 2.0, "latency_p95_s": 2.033,
    "tokens_per_s": 31.5,
}  # fmt: skip
ROUNDS = 100


def there(
    text: str, ratio: float, slowness: float, target: Target, shape: str = "smollm2-135m"
) -> Trial:
    """A trial measured here, `ratio` times as slow as the unchanged model in turns with it, in a
    process that ran `slowness` times slower than usual; projected onto `target`."""
    random = np.random.default_rng(7)
    moments = slowness * random.lognormal(0, 0.05, ROUNDS)
    noise = random.lognormal(0, 0.01, ROUNDS)
    found = []
    model = models.resolve(f"shape:{shape}")
    larger = model.weight_bytes(16) / models.resolve("shape:smollm2-135m").weight_bytes(16)
    for name, usual in TIMES.items():
        sign = -1 if name == "tokens_per_s" else 1
        theirs = usual * (larger * moments) ** sign
        ours = theirs * (ratio * noise) ** sign if text else theirs
        reference = tuple(map(float, theirs)) if text else ()
        found.append(
            Measurement(
                name, tuple(map(float, ours)), BY_NAME[name].unit, "measured", "timed",
                reference=reference,
            )
        )  # fmt: skip
    case = Case(model, HERE, workloads.resolve("chat"))
    plan = Plan(case, tuple(techniques.parse(part) for part in text.split()))
    here = Trial(f"t{text}", "s", plan, "done", measurements=tuple(found))
    moved = replace(plan, case=replace(case, target=target))
    return replace(here, plan=moved, measurements=project(here, target))


TWICE = replace(
    HERE, id="twice", local=False, bandwidth=53e9, peaks=(("bf16", 4e12),), usd_per_hour=1.0
)


@pytest.mark.parametrize("slowness", [0.2, 1.0, 5.0])
def test_the_measured_ratio_is_carried_over_whatever_the_hour(slowness: float) -> None:
    base = there("", 1.0, 1.0, TWICE)
    found = against(there("distill-soft", 0.5, slowness, TWICE), base, "tpot_s")
    assert found.ratio == pytest.approx(0.5, rel=0.02)
    assert found.verdict == "better"
    # The bounds of either alone span a factor of four and more.
    bounds = base.metric("tpot_s").bounds  # type: ignore[union-attr]
    assert bounds is not None
    assert bounds[1] / bounds[0] > 4


def test_fewer_bytes_gain_what_the_two_rooflines_say() -> None:
    """Decoding 4-bit codes here gained 2.5; there and here memory is the limit, so the same gain is
    expected, and the kernels' unlike shares of it may be wrong by RATIO."""
    base = there("", 1.0, 1.0, TWICE)
    found = against(there("weight-int4", 0.4, 3.0, TWICE), base, "tpot_s")
    assert found.ratio == pytest.approx(0.4, rel=0.1)
    factor = RATIO["other kernels"]
    assert found.low == pytest.approx(found.ratio / factor, rel=0.02)  # type: ignore[operator]
    assert found.high == pytest.approx(found.ratio * factor, rel=0.02)  # type: ignore[operator]
    assert found.verdict == "better"


@pytest.mark.parametrize("name", ["tpot_s", "tokens_per_s", "usd_per_mtok"])
def test_a_small_gain_by_other_kernels_is_not_distinguishable(name: str) -> None:
    base = there("", 1.0, 1.0, TWICE)
    found = against(there("weight-int4", 0.9, 1.0, TWICE), base, name)
    assert found.verdict == UNPROJECTED
    assert "noise" not in found.verdict


def test_dollars_on_an_h100_tell_a_gain_from_none() -> None:
    """The bounds overlap, the ratio does not reach 1."""
    target = targets.resolve("h100-sxm")
    base = there("", 1.0, 1.0, target, "llama-3.1-8b")
    cheaper = there("weight-int4", 0.4, 2.0, target, "llama-3.1-8b")
    ours, theirs = cheaper.metric("usd_per_mtok"), base.metric("usd_per_mtok")
    assert ours is not None
    assert theirs is not None
    assert ours.bounds is not None
    assert theirs.bounds is not None
    assert ours.bounds[1] > theirs.bounds[0]
    found = against(cheaper, base, "usd_per_mtok")
    assert found.verdict == "better"
    rate = against(cheaper, base, "tokens_per_s")
    assert found.ratio * rate.ratio == pytest.approx(1.0, rel=1e-6)  # type: ignore[operator]


def test_a_gain_in_bytes_is_none_where_launches_take_the_time() -> None:
    """What published programs take a layer there is more than 135 million weights take to read."""
    target = targets.resolve("h100-sxm")
    found = against(there("weight-int4", 0.4, 2.0, target), there("", 1.0, 1.0, target), "tpot_s")
    assert found.verdict == UNPROJECTED
    assert found.ratio > 0.8


def test_plans_that_do_the_same_work_have_no_model_error() -> None:
    case = Case(models.resolve("shape:smollm2-135m"), TWICE, workloads.resolve("chat"))
    distilled = Plan(case, (techniques.parse("distill-soft"),))
    assert ratio_error(distilled, Plan(case)) == 1.0
    assert ratio_error(Plan(case, (techniques.parse("prune-mlp"),)), Plan(case)) == 1.1
    assert ratio_error(Plan(case, (techniques.parse("w8a8"),)), Plan(case)) == 1.5


def test_projections_without_rounds_are_compared_by_their_values() -> None:
    """As older stores have them: bounds of a factor of 15, the same for both."""
    base, cand = there("", 1.0, 1.0, TWICE), there("weight-int4", 0.4, 1.0, TWICE)

    def bare(trial: Trial, value: float) -> Trial:
        cost = Measurement(
            "usd_per_mtok", (), "$", "projected", "roofline", pooled=value,
            bounds=(value / 4, value * 4),
        )  # fmt: skip
        return replace(trial, measurements=(cost,))

    found = against(bare(cand, 0.5), bare(base, 1.0), "usd_per_mtok")
    assert found.ratio == pytest.approx(0.5)
    assert found.verdict == "better"
    near = against(bare(cand, 0.9), bare(base, 1.0), "usd_per_mtok")
    assert near.verdict == UNPROJECTED


def test_a_tail_of_few_rounds_proves_nothing_there_either() -> None:
    """Ten rounds say too little of a p95 here, so they say too little there; the median does not
    need them."""
    base, moved = there("", 1.0, 1.0, TWICE), there("weight-int4", 0.3, 1.0, TWICE)

    def short(trial: Trial) -> Trial:
        return replace(
            trial,
            measurements=tuple(
                replace(one, samples=one.samples[:10], reference=one.reference[:10])
                for one in trial.measurements
            ),
        )

    assert against(short(moved), short(base), "latency_p95_s").verdict == "too few runs"
    assert against(short(moved), short(base), "latency_s").verdict == "better"
    assert against(moved, base, "latency_p95_s").verdict == "better"
