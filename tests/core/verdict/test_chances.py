"""P(best) against what normal theory says, and its words: proven, not proven, nothing to act on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from core import priorities
from core.statistics.interleave import ratio_interval
from core.study import Study, Trial
from core.verdict.anchor import anchored
from core.verdict.chances import _of_rounds, chances
from core.verdict.recommend import AGAIN, recommend
from tests.core.verdict.noisy_study import noisy_study, timed


def rivals(base: Study, lead: float, noise: float, rounds: int = 100) -> Study:
    """The baseline and two candidates whose latencies differ by a factor of exp(`lead`), pairs
    scattering by `noise` in the logarithm; latency alone counts."""
    study = noisy_study(base, disturbed=False)
    first, second = study.trials[1:3]
    random = np.random.default_rng(11)

    def scatter() -> np.ndarray:
        # Symmetric around 0, so that the estimate is exact and only its error is at stake.
        half = np.abs(random.normal(0, noise, rounds // 2))
        return random.permutation(np.concatenate([half, -half]))

    found = []
    for trial, shift in ((first, 0.0), (second, lead)):
        ones = np.ones(rounds)
        latency = timed("latency_s", np.exp(-0.7 + shift + scatter()), ones)
        found.append(replace(trial, measurements=(latency,)))
    weighted = priorities.parse(["latency=1"], [])
    return replace(study, trials=(study.trials[0], *found), priorities=weighted)


@pytest.mark.parametrize("lead", [0.0, 0.02, 0.05, 0.1])
def test_the_chance_is_that_of_two_normal_estimates(synthetic_study: Study, lead: float) -> None:
    noise, rounds = 0.3, 100
    study = rivals(synthetic_study, lead, noise, rounds)
    found = chances(study, study.trials[1:])
    assert found is not None
    assert sum(found.values()) == pytest.approx(1.0)
    # Hodges and Lehmann's estimate has 3 / pi of the mean's information; two copies of a plan may
    # differ by 1 % on top of it.
    one = noise**2 / rounds * np.pi / 3 + (np.log(1.01) / 1.96) ** 2
    wanted = stats.norm.cdf(lead / np.sqrt(2 * one))
    assert found["t1"] == pytest.approx(wanted, abs=0.07)


def test_a_trial_and_its_twin_share_the_chance(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study)
    again = replace(study.trials[2], id="t2")
    found = chances(study, (study.trials[2], again))
    assert found == {"t2": 0.5}


def test_a_clear_lead_is_proven_and_said_so(synthetic_study: Study) -> None:
    found = recommend(noisy_study(synthetic_study, disturbed=False))
    assert found.trial_id == "t2"
    assert found.proven
    assert found.again == ()
    assert found.p_best is not None
    assert found.p_best > 0.95
    assert found.because[0].endswith("and is best in over 99 % of resamples of the measured pairs.")


def test_a_narrow_lead_is_not_proven_and_names_who_comes_close(synthetic_study: Study) -> None:
    study = rivals(synthetic_study, 0.01, 0.3)
    found = recommend(study)
    assert not found.proven
    assert found.p_best is not None
    assert found.p_best < 0.95
    assert found.because[0].startswith("Not proven yet: ")
    assert "come close" in found.because[0]
    assert found.again[0] == found.trial_id
    assert len(found.again) == AGAIN


def test_a_study_that_was_disturbed_throughout_is_nothing_to_act_on(
    synthetic_study: Study,
) -> None:
    study = noisy_study(synthetic_study)
    found = recommend(study)
    assert not found.proven
    assert found.because[0].startswith(
        "No recommendation to act on yet: every trial was disturbed by other work on the machine."
    )
    assert found.again
    quiet = study.with_trials((replace(study.trials[0], notes=()), *study.trials[1:]))
    assert recommend(quiet).proven


def test_the_same_study_gives_the_same_chance(synthetic_study: Study) -> None:
    study = rivals(synthetic_study, 0.02, 0.3)
    assert recommend(study).p_best == recommend(study).p_best


def test_latency_and_throughput_of_the_same_rounds_count_as_one_look(
    synthetic_study: Study,
) -> None:
    """Both are the same clock: twice the gain with twice the error is no surer than once."""
    study = rivals(synthetic_study, 0.04, 0.3)
    alone = chances(study, study.trials[1:])
    trials = [study.trials[0]]
    for trial in study.trials[1:]:
        latency = trial.measurements[0]
        ours, theirs = (100 / np.array(one) for one in (latency.samples, latency.reference))
        trials.append(replace(trial, measurements=(latency, timed("tokens_per_s", ours, theirs))))
    weighted = priorities.parse(["latency=1", "throughput=1"], [])
    both = chances(replace(study, trials=tuple(trials), priorities=weighted), trials[1:])
    assert alone is not None
    assert both is not None
    assert both["t1"] == pytest.approx(alone["t1"], abs=0.01)


def test_numbers_taken_apart_may_differ_by_more_than_their_samples_say(
    synthetic_study: Study,
) -> None:
    study = noisy_study(synthetic_study, disturbed=False)
    scatter = np.linspace(-0.001, 0.001, 25)
    trials = [
        replace(trial, measurements=(timed("latency_s", np.exp(shift + scatter)),))
        for trial, shift in zip(study.trials[:3], (0.0, -0.7, -0.66), strict=True)
    ]
    weighted = priorities.parse(["latency=1"], [])
    found = chances(replace(study, trials=tuple(trials), priorities=weighted), trials)
    assert found is not None
    one = np.log(1.08) / 1.96
    assert found["t1"] == pytest.approx(stats.norm.cdf(0.04 / np.sqrt(2) / one), abs=0.05)


def test_few_rounds_scatter_as_widely_as_the_exact_interval_of_their_ratio() -> None:
    wide = []
    for seed in range(60):
        ours = tuple(np.exp(np.random.default_rng(seed).normal(0, 0.1, 8)).tolist())
        drawn = _of_rounds(f"t{seed}", ours, (1.0,) * 8)
        exact = ratio_interval(ours, (1.0,) * 8)
        assert drawn is not None
        assert exact is not None
        low, high = np.quantile(drawn, (0.025, 0.975))
        wide.append((high - low) / np.log(exact[2] / exact[1]))
    assert 0.85 < np.mean(wide) < 1.15


def test_plans_far_behind_have_no_chance_and_the_others_all_of_it(synthetic_study: Study) -> None:
    study = rivals(synthetic_study, 0.02, 0.3)
    behind = replace(
        study.trials[2],
        id="t9",
        measurements=(timed("latency_s", np.full(100, 9.0), np.ones(100)),),
    )
    whole = replace(study, trials=(*study.trials, behind))
    found, two = chances(whole, whole.trials[1:]), chances(study, study.trials[1:])
    assert two is not None
    assert found == {**two, "t9": 0.0}


def test_the_unchanged_model_is_called_so_among_the_runners_up(synthetic_study: Study) -> None:
    study = rivals(synthetic_study, 0.0, 0.3)
    slow = tuple(
        replace(
            t, measurements=(timed("latency_s", np.exp(np.linspace(-0.2, 0.18, 99)), np.ones(99)),)
        )
        for t in study.trials[1:2]
    )
    found = recommend(replace(study, trials=(study.trials[0], *slow)))
    assert "the unchanged model comes close" in found.because[0]
    assert "baseline come" not in found.because[0]


@pytest.mark.parametrize("rounds", [3, 5, 6, 24])
def test_the_chance_is_the_same_on_an_anchored_study(synthetic_study: Study, rounds: int) -> None:
    study = rivals(synthetic_study, 0.02, 0.3)
    few = [
        replace(trial, measurements=(timed("latency_s", *cut(trial, rounds)),))
        for trial in study.trials[1:]
    ]
    study = replace(study, trials=(study.trials[0], *few))
    assert recommend(anchored(study)) == recommend(study)


def cut(trial: Trial, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    latency = trial.measurements[0]
    return np.array(latency.samples[:rounds]), np.array(latency.reference[:rounds])


def test_what_no_round_can_tell_apart_is_best_together(synthetic_study: Study) -> None:
    study = noisy_study(synthetic_study, disturbed=False)
    twin = replace(study.trials[2], id="t7")
    found = recommend(study.with_trials((*study.trials, twin)))
    assert found.trial_id == "t2"
    assert found.proven
    assert found.again == ()
