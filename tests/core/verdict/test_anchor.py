"""Numbers at the pooled baseline agree with the ratios, whatever the clock said in each process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.format import of_metric
from core.study import Study
from core.verdict.against import against
from core.verdict.anchor import anchored, at_own_baseline
from tests.core.verdict.noisy_study import LATENCY_S, RATE, TRUTH, noisy_study


def test_every_number_is_its_ratio_times_one_baseline(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    shown = anchored(study)
    base = shown.trials[0]
    slowness = [2.0, *(truth[3] for truth in TRUTH.values())]
    pooled = float(np.median(slowness))
    assert base.value("latency_s") == pytest.approx(LATENCY_S * pooled, rel=0.03)
    assert base.value("tokens_per_s") == pytest.approx(
        RATE * float(np.median(1 / np.array(slowness))), rel=0.03
    )
    for trial in shown.trials[1:]:
        for name in ("latency_s", "tokens_per_s"):
            value, low = trial.value(name), trial.metric(name)
            assert low is not None
            ratio = against(trial, base, name).ratio
            assert value == pytest.approx(ratio * base.value(name))  # type: ignore[operator]
            bounds = low.interval()
            assert bounds is not None
            assert bounds[0] <= value <= bounds[1]  # type: ignore[operator]


def test_the_verdicts_are_those_of_the_raw_study(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    shown = anchored(study)
    for raw, moved in zip(study.trials, shown.trials, strict=True):
        for one in raw.measurements:
            before = against(raw, study.trials[0], one.metric)
            after = against(moved, shown.trials[0], one.metric)
            assert (before.verdict, before.ratio) == (after.verdict, after.ratio)


def test_anchoring_twice_changes_no_number(synthetic_study: Study) -> None:
    once = anchored(noisy_study(synthetic_study))
    twice = anchored(once)
    for first, second in zip(once.trials, twice.trials, strict=True):
        for one in first.measurements:
            again = second.metric(one.metric)
            assert again is not None
            assert again.value == pytest.approx(one.value)


def test_the_clock_is_kept_in_samples_and_method(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    raw, moved = study.trials[2], anchored(study).trials[2]
    before, after = raw.metric("latency_s"), moved.metric("latency_s")
    assert before is not None
    assert after is not None
    assert after.samples == before.samples
    said = of_metric("latency_s", before.value)
    assert f"the clock said {said} beside" in after.method
    assert "of the unchanged model" in after.method


def test_a_trial_that_failed_after_its_timing_is_shown_at_the_same_baseline(
    synthetic_study: Study,
) -> None:
    """Its numbers stand beside the others', so number and verdict must speak of one baseline."""
    study = noisy_study(synthetic_study)
    failed = replace(study.trials[1], state="failed", reason="it ran longer than 300 s")
    study = study.with_trials((study.trials[0], failed, *study.trials[2:]))
    shown = anchored(study)
    base, moved = shown.trials[:2]
    ratio = against(failed, study.trials[0], "latency_s").ratio
    assert ratio is not None
    assert moved.value("latency_s") == pytest.approx(ratio * (base.value("latency_s") or 0))
    assert moved.value("latency_s") != failed.value("latency_s")


def test_without_a_finished_baseline_nothing_moves(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    broken = study.with_trials((replace(study.trials[0], state="failed"), *study.trials[1:]))
    assert anchored(broken) == broken


def test_trials_of_two_studies_are_each_at_their_own_baseline(synthetic_study: Study) -> None:
    first = noisy_study(synthetic_study, 1)
    second = noisy_study(synthetic_study, 2)
    second = replace(
        second,
        id="s2",
        trials=tuple(replace(one, id=f"u{one.id}", study_id="s2") for one in second.trials),
    )
    mixed = (first.trials[1], second.trials[1])
    shown = at_own_baseline(mixed, (first, second))
    for trial, study in zip(shown, (first, second), strict=True):
        wanted = anchored(study).trial(trial.id)
        assert wanted is not None
        assert trial.value("latency_s") == wanted.value("latency_s")
