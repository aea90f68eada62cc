"""Unlike environments are named with what differs; disturbed trials are named with why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.caution import Caution
from core.study import Study, Trial
from core.verdict import environments

FACTS: dict[str, Any] = {
    "cpu": "EPYC",
    "flags": ["avx2", "avx512f"],
    "versions": {"torch": "2.12.0", "numpy": "2.4"},
    "gpus": [{"name": "L4", "power_limit_w": 72}],
    "load_1m": 0.1,
    "available_bytes": 1,
}


def moved(trial: Trial, environment: str) -> Trial:
    """The trial as if all of it had been measured elsewhere."""
    found = tuple(replace(one, environment=environment) for one in trial.measurements)
    return replace(trial, id=f"{trial.id}-{environment}", measurements=found)


@pytest.fixture
def trials(synthetic_study: Study) -> tuple[Trial, Trial]:
    base, other = synthetic_study.done()[:2]
    return moved(base, "a"), moved(other, "b")


def test_one_environment_needs_no_words(synthetic_study: Study) -> None:
    assert environments.warnings(synthetic_study.trials, {}) == ()


def test_what_differs_is_named_with_both_values(trials: tuple[Trial, Trial]) -> None:
    newer = {**FACTS, "versions": {"torch": "2.13.0", "numpy": "2.4"}, "load_1m": 7.0}
    (said,) = environments.warnings(trials, {"a": FACTS, "b": newer})
    assert "torch (2.12.0 / 2.13.0)" in said
    assert "load" not in said
    assert "numpy" not in said
    assert "a: baseline; b: weight-int8" in said
    assert "t-000" not in said


def test_lists_name_only_what_one_side_lacks() -> None:
    fewer = {**FACTS, "flags": ["avx2"], "gpus": [{"name": "L4", "power_limit_w": 60}]}
    found = environments.differences([FACTS, fewer])
    assert found == ("CPU flags (avx512f)", "GPU 0 power limit w (72 / 60)")


def test_a_fact_that_one_side_does_not_know_differs() -> None:
    found = environments.differences([{"governor": "performance"}, {}])
    assert found == ("governor (performance / not known)",)


def test_ids_that_differ_in_volatile_facts_alone_are_alike(trials: tuple[Trial, Trial]) -> None:
    busy = {**FACTS, "load_1m": 9.0, "available_bytes": 5, "frequency_mhz": 1}
    assert environments.warnings(trials, {"a": FACTS, "b": busy}) == ()


def test_an_environment_without_facts_is_said_to_be_unknown(trials: tuple[Trial, Trial]) -> None:
    (said,) = environments.warnings(trials, {"a": FACTS, "b": None})
    assert "Nothing is recorded of b" in said
    (said,) = environments.warnings(trials)
    assert "Nothing is recorded of a, b" in said


def test_many_differences_are_counted_and_long_values_left_out() -> None:
    one = {f"fact_{number}": "x" * 60 for number in range(9)}
    two = {f"fact_{number}": "y" * 60 for number in range(9)}
    (said,) = environments.unlike({"t-1": ["a"], "t-2": ["b"]}, {"a": one, "b": two})
    assert "fact 0, fact 1" in said
    assert "and 3 more" in said
    assert "xxx" not in said


def test_many_trials_are_counted() -> None:
    ids = {f"t-{number}": ["a" if number else "b"] for number in range(9)}
    (said,) = environments.unlike(ids, {"a": {"cpu": 1}, "b": {"cpu": 2}})
    assert "t-1, t-2, t-3, t-4 and 4 more" in said


def test_a_caution_is_found_again_and_other_notes_are_not(synthetic_study: Study) -> None:
    note = Caution("load", "other processes took 1.20 of 2 cores").line
    trial = replace(synthetic_study.trials[0], notes=("caution", "cautionary: tale", "x: y", note))
    assert environments.cautions(trial) == (
        Caution("load", "other processes took 1.20 of 2 cores"),
    )


def test_disturbed_trials_are_named_once_a_kind(synthetic_study: Study) -> None:
    def noisy(trial: Trial, *kinds: str) -> Trial:
        notes = tuple(Caution(kind, f"it was {kind}").line for kind in kinds)
        return replace(trial, notes=notes)

    one, two, three = synthetic_study.done()[:3]
    found = environments.warnings((noisy(one, "load"), two, three))
    assert found == ("baseline: it was load.",)
    found = environments.warnings((noisy(one, "load"), noisy(two, "load", "clock"), three))
    assert found == (
        "2 of 3 trials (baseline, weight-int8) ran while other processes used the cores: "
        "treat speed as unproven.",
        "weight-int8: it was clock.",
    )
    found = environments.warnings((noisy(one, "governor"), noisy(two, "governor")))
    assert found == ("All trials: it was governor.",)


def test_a_trial_that_never_ran_is_not_counted_among_those_that_did(
    synthetic_study: Study,
) -> None:
    note = Caution("load", "others were busy").line
    one, two, three = synthetic_study.done()[:3]
    never = replace(three, state="cancelled", measurements=(), notes=())
    busy = [replace(trial, notes=(note,)) for trial in (one, two)]
    assert environments.warnings((*busy, never)) == environments.warnings(busy)


def test_a_reason_that_several_trials_share_is_said_with_them(synthetic_study: Study) -> None:
    def slow(trial: Trial, op: str, why: str) -> Trial:
        note = Caution("fallback", f"{op} ran without our kernels: {why}").line
        return replace(trial, notes=(note,))

    one, two = synthetic_study.done()[:2]
    found = environments.warnings((slow(one, "rms_norm", "no room"), slow(two, "x", "no room")))
    assert found == ("Both trials ran without our kernels (no room).",)
    found = environments.warnings((slow(one, "rms_norm", "no room"), slow(two, "x", "no luck")))
    assert found == ("Both trials ran without our kernels.",)


def test_trials_of_one_plan_are_told_apart_and_all_of_them_are_only_counted(
    synthetic_study: Study,
) -> None:
    def noisy(number: int, disturbed: bool = True) -> Trial:
        trial = replace(synthetic_study.trials[1], id=f"t-0vjm0esi{number}n6x")
        return replace(trial, notes=(Caution("load", "busy").line,) if disturbed else ())

    (said,) = environments.warnings((noisy(1), noisy(2), noisy(3, disturbed=False)))
    assert said.startswith("2 of 3 trials (weight-int8 …1n6x, weight-int8 …2n6x) ran while")
    (said,) = environments.warnings([noisy(number) for number in range(9)])
    assert said.startswith("All 9 trials ran while other processes used the cores")
