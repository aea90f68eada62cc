"""The figures of a run on a GPU: computed where they were measured, and never invented."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.machine.targets import detect_local
from core.measurement import Measurement, unavailable
from core.predict import fit
from core.study import Study, Trial
from core.techniques.kinds import refuse
from tests.evidence.gpu import figures, plans, results, studies
from tests.evidence.gpu.place import Place


def measured(metric: str, *samples: float) -> Measurement:
    return Measurement(metric, samples, "", "measured", "timed")


@pytest.fixture
def study() -> Study:
    question = plans.questions(rehearsal=False, only=("8b-1",))[0]
    made, wanted = plans.study(question, detect_local())
    trials = [Trial(f"t-{n}", made.id, plan, "done") for n, plan in enumerate(wanted)]
    return made.with_trials(tuple(trials))


def told(study: Study, *measurements: Measurement) -> Study:
    """The study with these measurements of its 4-bit trial."""
    trials = list(study.trials)
    trials[1] = replace(trials[1], measurements=measurements)
    return study.with_trials(tuple(trials))


def test_the_share_of_the_bandwidth_is_that_of_the_model_in_4_bit(study: Study) -> None:
    reached = figures.decode_share([told(study, measured("mbu", 0.65, 0.63, 0.64))])
    assert (reached.value, reached.reached) == (0.64, True)
    assert "64 % (60 % wanted: reached)" in reached.sentence
    missed = figures.decode_share([told(study, measured("mbu", 0.25))])
    assert missed.reached is False
    assert "MISSED" in missed.sentence


def test_the_kernels_goals_are_the_worst_right_case_of_the_benchmark(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, 0.0)
    empty = list(figures.kernels(place))
    assert [figure.value for figure in empty] == [None] * 4
    row = {"format": "int4-g32", "n": 4096, "k": 4096, "kernel": "triton", "right": True}
    rows = [
        {**row, "rows": 1, "copy_share": 0.9, "to_bf16": [3.0, 2.9, 3.1]},
        {**row, "rows": 8, "copy_share": 0.7, "to_bf16": [2.0, 1.9, 2.1]},
        {**row, "rows": 8, "copy_share": 0.85, "to_bf16": [2.0, 1.9, 2.1], "right": False},
        {**row, "rows": 64, "copy_share": 0.1, "to_bf16": [0.95, 0.9, 1.0]},
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
    few, many, *others = figures.kernels(place)
    assert (few.value, few.reached, many.value, many.reached) == (0.7, False, 0.95, True)
    assert "70 % (80 % wanted: MISSED); the worst of 2 cases" in few.sentence
    assert "0.950x (0.900x wanted: reached)" in many.sentence
    assert all(figure.sentence.endswith("no such case was timed on a GPU)") for figure in others)


def test_energy_comes_with_its_interval(study: Study, tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, 0.0)
    found = told(study, measured("energy_j_per_token", 0.30, 0.31, 0.32))
    figure = figures.energy(place, [found])
    assert figure.value == 0.31
    assert figure.interval == pytest.approx((0.30, 0.32))
    assert "310 mJ [300 mJ, 320 mJ]" in figure.sentence


def test_energy_of_decoded_spans_stands_in_for_a_trial_that_was_too_short(
    study: Study, tmp_path: Path
) -> None:
    place = Place(tmp_path, tmp_path, 0.0)
    short = told(study, unavailable("energy_j_per_token", "J", "it needs 99 rounds, 12 were timed"))
    assert figures.energy(place, [short]).sentence.endswith(
        "not measured (it needs 99 rounds, 12 were timed)"
    )
    decode = {"model": "shape:llama-3.1-8b", "joules_a_token": [0.50, 0.51, 0.52]}
    results.add_json(place, "steps.json", "energy", {"decode": decode})
    figure = figures.energy(place, [short])
    assert (figure.value, figure.how.split(",")[0]) == (
        0.51,
        "3 spans by the driver's counter at batch 1",
    )
    results.add_json(place, "steps.json", "energy", {"decode": {**decode, "model": "pycode-small"}})
    assert figures.energy(place, [short]).value is None


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, 0.0)
    assert figures.decode_share([]).sentence.endswith("not measured (no such trial)")
    assert figures.energy(place, []).sentence.endswith("not measured (no such trial)")


def test_every_trial_has_a_line(study: Study) -> None:
    refused = replace(study.trials[2], state="refused", reason="it does not fit")
    trials = (*study.trials[:2], refused, *study.trials[3:])
    lines = list(figures.lines([told(study.with_trials(trials), measured("tpot_s", 0.002))]))
    assert len(lines) == len(study.trials)
    assert "2.00 ms" in lines[1]
    assert ": refused (it does not fit);" in lines[2]


def test_studies_are_content_when_something_was_measured_and_nothing_failed(study: Study) -> None:
    assert studies.said([study], ["8b-8"]) == (True, "1 studies: 7 done; not begun: 8b-8")
    failed = replace(study.trials[3], state="failed")
    assert studies.said([study.with_trials((*study.trials, failed))], [])[0] is False
    assert studies.said([], [])[0] is False


def test_the_unchanged_model_comes_first_and_batches_stand_on_every_technique() -> None:
    for rehearsal in (False, True):
        for question in plans.questions(rehearsal):
            _, wanted = plans.study(question, detect_local())
            assert wanted[0].techniques == ()
            assert len({plan.key for plan in wanted}) == len(wanted)
            assert {plan.batch for plan in wanted[1:]} == {question.batch}
    with pytest.raises(ValueError, match="there is no study 'nonsense'; known are 8b-1, "):
        plans.questions(False, ("nonsense",))


def test_every_plan_runs_on_a_card_of_140_gb_as_far_as_is_known_before() -> None:
    card = replace(detect_local(), kind="cuda", memory_bytes=140_000_000_000)
    for question in plans.questions(rehearsal=False):
        for plan in plans.study(question, card)[1]:
            assert (refuse(plan) or fit(plan)) is None, (question.name, plan.title)
