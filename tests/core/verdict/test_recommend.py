"""The recommendation on studies whose answer can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from core import priorities, techniques
from core.measurement import Measurement, unavailable
from core.metrics import BY_NAME
from core.plan import Case, Plan
from core.priorities import Priorities
from core.study import Study, Trial
from core.verdict import utility
from core.verdict.reasons import sentence
from core.verdict.recommend import recommend

SPREAD = (0.99, 0.995, 1.0, 1.005, 1.01)


def measurement(name: str, value: float | None, origin: str = "measured") -> Measurement:
    unit = BY_NAME[name].unit
    if value is None:
        return unavailable(name, unit, "nothing can be read here")
    return Measurement(name, tuple(value * s for s in SPREAD), unit, origin, "timed")


def study_of(
    base: Study, limits: list[str], *trials: Trial, weights: list[str] | None = None
) -> Study:
    return replace(base, trials=trials, priorities=priorities.parse(weights or [], limits))


def trial(case: Case, number: int, plan: str, state: str = "done", **values: float | None) -> Trial:
    chosen = tuple(techniques.parse(text) for text in plan.split())
    found = tuple(measurement(name, value) for name, value in values.items())
    return Trial(f"t{number}", "s", Plan(case, chosen), state, measurements=found)


@pytest.fixture
def trials(synthetic_study: Study) -> tuple[Trial, ...]:
    """Baseline, twice as fast and half as large at little loss, fastest at much loss."""
    case = synthetic_study.case
    return (
        trial(case, 0, "", latency_p95_s=2.0, tokens_per_s=80.0, model_bytes=400e6),
        trial(
            case, 1, "weight-int8",
            latency_p95_s=1.0, tokens_per_s=160.0, model_bytes=200e6, kl_nats=0.005,
        ),
        trial(
            case, 2, "weight-int4",
            latency_p95_s=0.5, tokens_per_s=320.0, model_bytes=100e6, kl_nats=0.5,
        ),
    )  # fmt: skip


def test_the_utility_is_the_documented_sum(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    scores = utility.utilities(study_of(synthetic_study, [], *trials))
    assert scores["t0"] == 0.0
    assert scores["t1"] == pytest.approx(1 + 1 + 1 - 0.005 / 0.05)
    assert scores["t2"] == pytest.approx(2 + 2 + 2 - 0.5 / 0.05)


def test_weights_scale_the_words(synthetic_study: Study, trials: tuple[Trial, ...]) -> None:
    study = study_of(synthetic_study, [], *trials, weights=["latency=2", "quality=0.1"])
    scores = utility.utilities(study)
    assert scores["t2"] == pytest.approx(2 * 2 - 0.1 * 10)
    assert recommend(study).trial_id == "t2"


def test_the_best_is_recommended_with_numbers(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    found = recommend(study_of(synthetic_study, ["kl_nats<=0.05"], *trials))
    assert found.trial_id == "t1"
    text = " ".join(found.because)
    assert "weight-int8" in text
    assert "Latency, p95: 2.00x faster (2.00 s → 1.00 s)." in text
    assert "Model size: 2.00x smaller (400 MB → 200 MB)." in text
    assert "It passes KL to baseline at most 0.0500 nat: 0.00500 nat." in text


def test_every_other_frontier_point_gets_a_reason(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    found = recommend(study_of(synthetic_study, ["kl_nats<=0.05"], *trials))
    assert set(found.frontier) == {"t0", "t1", "t2"}
    reasons = dict(found.rejected)
    assert set(reasons) == {"t0", "t2"}
    assert "Misses KL to baseline at most 0.0500 nat: it has 0.500 nat" in reasons["t2"]
    assert "Scores lower, +0.00 points against +2.90" in reasons["t0"]


def test_scores_are_sorted_from_best_to_worst(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    found = recommend(study_of(synthetic_study, [], *trials))
    assert [name for name, _ in found.scores] == ["t1", "t0", "t2"]
    assert all(a >= b for (_, a), (_, b) in pairwise(found.scores))


def test_an_unknown_value_never_passes_a_limit(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    blind = trial(synthetic_study.case, 3, "prune-mlp", latency_p95_s=0.01, tpot_s=None)
    found = recommend(study_of(synthetic_study, ["tpot_s<=1"], *trials, blind))
    assert found.trial_id is None
    assert found.because == (
        "No trial passes time per output token at most 1.00 s: it is unknown for all of them.",
    )


def test_an_unavailable_limit_metric_says_why(synthetic_study: Study) -> None:
    case = synthetic_study.case
    base = trial(case, 0, "", latency_p95_s=1.0, energy_j_per_token=None)
    found = recommend(study_of(synthetic_study, ["energy_j_per_token<=9"], base))
    assert found.trial_id is None
    assert "unknown (nothing can be read here), and unknown never passes" in found.rejected[0][1]


def test_no_feasible_trial_names_the_limit_and_the_nearest_value(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    found = recommend(study_of(synthetic_study, ["latency_p95_s<=0.1"], *trials))
    assert found.trial_id is None
    assert found.because == (
        "No trial passes latency, p95 at most 100 ms: the nearest is 500 ms"
        " (weight-int4(group_size=32)).",
    )
    assert {name for name, _ in found.rejected} == set(found.frontier)


def test_limits_that_only_fail_together_are_said_so(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    limits = ["latency_p95_s<=0.6", "kl_nats<=0.05"]
    found = recommend(study_of(synthetic_study, limits, *trials))
    assert found.trial_id is None
    assert "No trial passes all 2 limits at once" in found.because[0]


def test_only_done_trials_count(synthetic_study: Study, trials: tuple[Trial, ...]) -> None:
    broken = replace(trials[1], state="failed")
    found = recommend(study_of(synthetic_study, [], trials[0], broken))
    assert found.trial_id == "t0"
    assert "no change has been measured yet" in found.because[0]


def test_without_a_finished_baseline_nothing_is_recommended(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    base = replace(trials[0], state="failed", reason="it was killed")
    found = recommend(study_of(synthetic_study, [], base, *trials[1:]))
    assert found.trial_id is None
    assert "the baseline is failed (it was killed)" in found.because[0]
    assert "no baseline" in recommend(study_of(synthetic_study, [], *trials[1:])).because[0]


def test_the_baseline_passes_limits_on_its_distance_to_itself(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    found = recommend(study_of(synthetic_study, ["kl_nats<=0.001"], *trials))
    assert found.trial_id == "t0"


def test_a_weighted_word_without_numbers_is_said(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    study = study_of(synthetic_study, [], *trials, weights=["latency=1", "energy=3"])
    text = " ".join(recommend(study).because)
    assert "Nothing is known about energy here, so its weight did not count." in text


def test_a_trial_that_hides_its_quality_is_not_preferred(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    hiding = trial(
        synthetic_study.case,
        3,
        "prune-mlp",
        latency_p95_s=0.9,
        tokens_per_s=170.0,
        model_bytes=190e6,
    )
    study = study_of(synthetic_study, [], *trials, hiding)
    assert utility.utilities(study)["t3"] < utility.utilities(study)["t1"]
    found = recommend(study)
    assert found.trial_id == "t1"
    assert "KL to baseline cannot be compared for 1 trial" in " ".join(found.because)


def test_a_difference_inside_the_noise_is_not_called_lower(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    near = trial(
        synthetic_study.case, 3, "w8a8",
        latency_p95_s=1.01, tokens_per_s=161.0, model_bytes=200.2e6, kl_nats=0.0052,
    )  # fmt: skip
    found = recommend(study_of(synthetic_study, [], *trials, near))
    assert found.trial_id == "t1"
    assert found.rejected[0][0] == "t0"
    assert "Not proven better or worse" in dict(found.rejected)["t3"]


def test_few_runs_are_never_called_proven(synthetic_study: Study) -> None:
    case = synthetic_study.case

    def once(number: int, plan: str, seconds: float) -> Trial:
        one = Measurement("latency_p95_s", (seconds,), "s", "measured", "timed once")
        chosen = tuple(techniques.parse(text) for text in plan.split())
        return Trial(f"t{number}", "s", Plan(case, chosen), "done", measurements=(one,))

    study = study_of(
        synthetic_study, [], once(0, "", 2.0), once(1, "weight-int8", 1.0), weights=["latency=1"]
    )
    found = recommend(study)
    assert found.trial_id == "t1"
    assert "too few runs to say how sure the choice is" in found.because[0]
    assert "Latency, p95: too few runs to say (2.00 s → 1.00 s)." in found.because
    assert found.p_best is None
    assert not found.proven
    assert found.again == ("t1", "t0")


def test_what_got_worse_is_not_hidden(synthetic_study: Study, trials: tuple[Trial, ...]) -> None:
    base = replace(trials[0], measurements=(*trials[0].measurements, measurement("ttft_s", 0.1)))
    fast = replace(trials[1], measurements=(*trials[1].measurements, measurement("ttft_s", 0.3)))
    text = " ".join(recommend(study_of(synthetic_study, [], base, fast)).because)
    assert "Time to first token: 3.00x slower (100 ms → 300 ms)." in text


def test_projected_numbers_are_named(synthetic_study: Study, trials: tuple[Trial, ...]) -> None:
    there = replace(
        trials[1],
        measurements=tuple(
            replace(one, samples=(), pooled=one.value, bounds=(1e-9, 1e9), origin="projected")
            if one.metric == "latency_p95_s"
            else one
            for one in trials[1].measurements
        ),
    )
    text = " ".join(recommend(study_of(synthetic_study, [], trials[0], there)).because)
    assert "Not measured but projected: latency (p95)." in text


def test_classifiers_are_judged_by_accuracy(synthetic_study: Study) -> None:
    from core.model import ClassifierShape

    model = replace(
        synthetic_study.case.model, id="digits", shape=ClassifierShape(100, 1000, 64, 10, 64)
    )
    case = replace(synthetic_study.case, model=model)
    base = trial(case, 0, "", latency_p95_s=1.0, accuracy=0.98)
    worse = trial(case, 1, "w8a8", latency_p95_s=0.5, accuracy=0.92)
    study = replace(study_of(synthetic_study, [], base, worse), case=case)
    assert dict(utility.axes(study))["quality"] == "accuracy"
    assert utility.utilities(study)["t1"] == pytest.approx(1 - 0.06 / 0.02)
    assert recommend(study).trial_id == "t0"


def test_equal_utilities_go_to_the_first_measured(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    twin = replace(trials[1], id="t9")
    assert recommend(study_of(synthetic_study, [], trials[0], trials[1], twin)).trial_id == "t1"
    assert recommend(study_of(synthetic_study, [], trials[0], twin, trials[1])).trial_id == "t9"


def test_the_synthetic_study_keeps_its_promises(synthetic_study: Study) -> None:
    found = recommend(synthetic_study)
    assert found == recommend(synthetic_study)
    done = {one.id for one in synthetic_study.done()}
    assert found.trial_id in done
    assert set(found.frontier) <= done
    assert {name for name, _ in found.rejected} == set(found.frontier) - {found.trial_id}
    assert {name for name, _ in found.scores} == done
    assert all(math.isfinite(score) for _, score in found.scores)


def test_no_weight_and_no_limit_recommends_the_baseline(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    study = replace(synthetic_study, trials=trials, priorities=Priorities(weights=()))
    found = recommend(study)
    assert found.trial_id == "t0"
    assert found.frontier == ()


def test_a_counted_metric_needs_no_second_sample(synthetic_study: Study) -> None:

    first, second = synthetic_study.done()[:2]
    sizes = [
        replace(trial, measurements=(Measurement("model_bytes", (size,), "B", "measured", "sum"),))
        for trial, size in ((first, 20e6), (second, 10e6))
    ]
    assert (
        sentence("model_bytes", sizes[1], sizes[0])
        == "Model size: 2.00x smaller (20.0 MB → 10.0 MB)."
    )
