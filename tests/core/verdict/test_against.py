"""The judge of trials: pairs decide, not medians of different hours; unlike things are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core import techniques
from core.condition import read as read_condition
from core.measurement import Measurement
from core.plan import Plan
from core.study import Study, Trial
from core.verdict import utility
from core.verdict.against import against, asked, served_at
from tests.core.verdict.noisy_study import TRUTH, noisy_study, timed


@pytest.mark.parametrize("seed", range(5))
def test_the_ratio_is_that_of_the_pairs_however_slow_the_process_was(
    synthetic_study: Study, seed: int
) -> None:
    base, *rest = noisy_study(synthetic_study, seed).trials
    for trial, truth in zip(rest, TRUTH.values(), strict=True):
        found = against(trial, base, "latency_s")
        assert found.ratio == pytest.approx(truth[0], rel=0.02)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.ratio <= found.high
        assert found.verdict == ("better" if truth[0] < 1 else "worse")
        # The unpaired medians would have said something else of every one of them.
        unpaired = trial.value("latency_s") / base.value("latency_s")  # type: ignore[operator]
        assert abs(unpaired / truth[0] - 1) > 0.15


def test_two_candidates_meet_through_the_unchanged_model(synthetic_study: Study) -> None:
    _, first, second, *_ = noisy_study(synthetic_study).trials
    found = against(second, first, "latency_s")
    assert found.ratio == pytest.approx(0.60 / 0.80, rel=0.03)
    assert found.verdict == "better"
    back = against(first, second, "latency_s")
    assert found.ratio * back.ratio == pytest.approx(1.0)  # type: ignore[operator]


def test_the_utility_is_made_of_the_same_ratios(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    base = study.trials[0]
    scores = utility.utilities(study)
    for trial in study.trials[1:]:
        by_hand = 0.0
        for name, sign in (("latency_s", -1), ("tokens_per_s", 1), ("model_bytes", -1)):
            by_hand += sign * np.log2(against(trial, base, name).ratio)
        by_hand -= trial.value("kl_nats") / 0.05  # type: ignore[operator]
        assert scores[trial.id] == pytest.approx(by_hand)


def full_batch(study: Study, *extra: Measurement) -> Trial:
    """An older trial: a batch of 16 timed with 16 requests where the workload asks for one."""
    base, first, *_ = study.trials
    plan = Plan(base.plan.case, (techniques.parse("static-batch:size=16"),))
    kept = tuple(one for one in first.measurements if one.metric != "concurrency")
    return replace(first, id="t9", plan=plan, measurements=(*kept, *extra))


def test_another_concurrency_than_the_workloads_is_not_compared(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    trial = full_batch(study)
    assert served_at(trial) == 16
    found = against(trial, study.trials[0], "latency_s")
    assert found.verdict == "not comparable"
    assert found.why == (
        "static-batch(size=16) was timed with 16 requests at a time, and the workload asks for 1"
    )
    assert against(study.trials[1], trial, "tokens_per_s").verdict == "not comparable"
    # Its size does not depend on how many requests were in flight.
    assert against(trial, study.trials[0], "model_bytes").verdict == "better"


def test_a_curve_through_the_workloads_concurrency_is_compared(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    point = replace(timed("latency_s", np.full(8, 5.0)), condition=read_condition("concurrency=1"))
    trial = full_batch(study, point)
    assert asked(trial, "latency_s") is point
    assert against(trial, study.trials[0], "latency_s").verdict == "worse"


def test_a_full_batch_is_never_recommended_for_one_at_a_time(synthetic_study: Study) -> None:
    from core.verdict.recommend import recommend

    study = noisy_study(synthetic_study, disturbed=False)
    rates = tuple(
        replace(one, samples=tuple(100 * value for value in one.samples))
        if one.metric == "tokens_per_s"
        else one
        for one in full_batch(study).measurements
    )
    tempting = replace(full_batch(study), measurements=rates)
    found = recommend(study.with_trials((*study.trials, tempting)))
    assert found.trial_id == "t2"
    assert found.proven


@pytest.mark.parametrize("right", [1, 2, 7, 450, 1000])
def test_full_agreement_is_never_worse(synthetic_study: Study, right: int) -> None:
    base = noisy_study(synthetic_study).trials[0]
    ones = np.ones(right)
    agree = replace(timed("top1_agreement", ones, ones), pooled=1.0)
    trial = replace(base, id="t9", measurements=(agree,))
    found = against(replace(trial, plan=Plan(base.plan.case, (techniques.parse("w8a8"),))), base,
                    "top1_agreement")  # fmt: skip
    assert found.verdict in ("same", "within noise")


def test_a_size_that_reads_as_no_change_is_the_same(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    base, first, *_ = study.trials
    sizes = tuple(
        replace(one, samples=(20e6 + 8,)) if one.metric == "model_bytes" else one
        for one in first.measurements
    )
    found = against(replace(first, measurements=sizes), base, "model_bytes")
    assert found.verdict == "same"
