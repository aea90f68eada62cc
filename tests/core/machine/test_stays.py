"""Which machine each trial ran on, when, and how that is said beside others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.machine.naming import machines
from core.machine.stays import machines_of, stays
from core.study import Study, Trial
from core.verdict import environments
from core.verdict.compare import compare
from core.verdict.documents import study_document

HERE: dict[str, Any] = {
    "cpu": "AMD EPYC 9J14 96-Core Processor",
    "cores": 2,
    "cores_online": 2,
    "versions": {"torch": "2.13.0"},
}
H200: dict[str, Any] = {
    "cpu": "Intel(R) Xeon(R) Platinum 8480+",
    "cores": 16,
    "gpus": [{"name": "NVIDIA H200", "memory_bytes": 139 * 2**30}],
    "driver": "580.95",
    "versions": {"torch": "2.11.0+cu130"},
}
FACTS = {"a": HERE, "b": H200, "c": HERE | {"versions": {"torch": "2.14.0"}}}


def moved(trial: Trial, environment: str) -> Trial:
    measurements = tuple(replace(row, environment=environment) for row in trial.measurements)
    return replace(trial, measurements=measurements)


@pytest.fixture
def trials(synthetic_study: Study) -> tuple[Trial, ...]:
    """One on the H200, two here with two versions of torch."""
    done = synthetic_study.done()[:3]
    return tuple(moved(trial, key) for trial, key in zip(done, "bac", strict=True))


def test_each_trial_has_the_machine_that_its_environment_is_of(trials: tuple[Trial, ...]) -> None:
    on = machines_of(trials, FACTS)
    assert [on[trial.id].name for trial in trials] == [
        "NVIDIA H200", "AMD EPYC 9J14, 2 cores", "AMD EPYC 9J14, 2 cores",
    ]  # fmt: skip
    assert on[trials[1].id] is on[trials[2].id]
    assert machines_of(trials, {"a": None, "b": {}}) == {}


def test_machines_of_one_name_are_told_apart() -> None:
    twin = HERE | {"cores_online": 8}
    names = {machine.name for machine in machines({"a": HERE, "b": twin}).values()}
    assert len(names) == 2
    assert all(name.startswith("AMD EPYC 9J14, 2 cores …") for name in names)


def test_a_line_says_card_driver_versions_and_day(trials: tuple[Trial, ...]) -> None:
    assert [stay.line for stay in stays(trials, FACTS)] == [
        "NVIDIA H200, driver 580.95, torch 2.11.0+cu130, 2026-11-21",
        "AMD EPYC 9J14, 2 cores, torch 2.13.0, 2026-11-21",
        "AMD EPYC 9J14, 2 cores, torch 2.14.0, 2026-11-21",
    ]
    later = replace(moved(trials[0], "b"), id="t-later", started_at="2026-12-02T10:00:00.000")
    (stay,) = stays((trials[0], later), FACTS)
    assert stay.line.endswith("2026-11-21 to 2026-12-02")
    (stay,) = stays((replace(trials[0], started_at=""),), FACTS)
    assert stay.line == "NVIDIA H200, driver 580.95, torch 2.11.0+cu130"


def test_the_warning_names_the_machines_once(trials: tuple[Trial, ...]) -> None:
    (sentence,) = environments.warnings(trials, FACTS)
    assert "in 3 unlike environments on 2 machines" in sentence
    assert "NVIDIA H200, b: baseline" in sentence
    assert "AMD EPYC 9J14, 2 cores, a: " in sentence
    (sentence,) = environments.warnings(trials[1:], FACTS)
    assert "in 2 unlike environments (a: " in sentence


def test_a_comparison_has_a_row_and_headings_of_machines(trials: tuple[Trial, ...]) -> None:
    comparison = compare(trials, trials[0].id, FACTS)
    row = comparison.row("machine")
    assert row is not None
    assert row.differs
    assert [cell.text for cell in row.cells] == [column.machine for column in comparison.columns]
    unknown = compare(trials, trials[0].id).row("machine")
    assert unknown is not None
    assert {cell.text for cell in unknown.cells} == {"—"}


def test_the_document_of_a_study_lists_its_machines(
    synthetic_study: Study, trials: tuple[Trial, ...]
) -> None:
    first = study_document(synthetic_study.with_trials(trials), FACTS)["machines"][0]
    assert first == {
        "name": "NVIDIA H200",
        "driver": "580.95",
        "torch": "2.11.0+cu130",
        "environments": ["b"],
        "trials": [trials[0].id],
        "first": "2026-11-21",
        "last": "2026-11-21",
    }
    assert study_document(synthetic_study)["machines"] == []
