"""The documented JSON: exactly its keys, null for what is unknown, nothing that JSON cannot say."""

from __future__ import annotations

import json
from dataclasses import replace

from core.caution import Caution
from core.condition import read as read_condition
from core.study import Study
from core.verdict.documents import study_document


def test_the_document_has_the_documented_keys(synthetic_study: Study) -> None:
    document = json.loads(json.dumps(study_document(synthetic_study), allow_nan=False))
    assert list(document) == [
        "study", "baseline", "frontier", "recommendation", "trials", "warnings",
        "machines",
    ]  # fmt: skip
    assert list(document["study"]) == [
        "id", "model", "target", "workload", "priorities", "limits", "margins", "data", "state",
        "who",
    ]  # fmt: skip
    assert set(document["recommendation"]) == {
        "trial", "because", "rejected", "p_best", "proven", "again", "robustness",
    }  # fmt: skip
    ids = {trial["id"] for trial in document["trials"]}
    assert document["baseline"] in ids
    assert set(document["frontier"]) <= ids
    assert set(document["recommendation"]["rejected"]) <= ids
    for trial in document["trials"]:
        assert set(trial) == {
            "id", "plan", "state", "reason", "who", "kernels", "environments", "cautions",
            "metrics", "margins", "against_baseline",
        }  # fmt: skip
        assert all("name" in technique for technique in trial["plan"]["techniques"])
        for one in trial["metrics"].values():
            assert set(one) == {"value", "low", "high", "n", "unit", "origin"}


def test_unknown_is_null_and_never_zero(synthetic_study: Study) -> None:
    document = study_document(synthetic_study)
    energy = [
        trial["metrics"]["energy_j_per_token"]
        for trial in document["trials"]
        if "energy_j_per_token" in trial["metrics"]
    ]
    assert energy
    for one in energy:
        if one["origin"] == "unavailable":
            assert (one["value"], one["low"], one["high"], one["n"]) == (None, None, None, 0)


def test_a_study_without_trials_is_a_document_too(synthetic_study: Study) -> None:
    document = study_document(synthetic_study.with_trials(()))
    assert document["baseline"] is None
    assert document["recommendation"]["trial"] is None
    assert document["trials"] == []


def test_unlike_environments_and_disturbed_trials_are_in_the_document(
    synthetic_study: Study,
) -> None:
    assert study_document(synthetic_study)["warnings"] == []
    first, second, *rest = synthetic_study.trials
    moved = tuple(replace(one, environment="env-b") for one in second.measurements)
    note = Caution("load", "other processes took 1.20 of 2 cores").line
    second = replace(second, measurements=moved, notes=(note,))
    facts = {"env-7f3a": {"kernel": "6.1"}, "env-b": {"kernel": "6.18"}}
    document = study_document(synthetic_study.with_trials((first, second, *rest)), facts)
    unlike, disturbed = document["warnings"]
    assert "kernel (6.1 / 6.18)" in unlike
    assert "took 1.20 of 2 cores" in disturbed
    assert document["trials"][1]["environments"] == ["env-b"]
    assert document["trials"][1]["cautions"] == ["other processes took 1.20 of 2 cores"]


def test_numbers_under_varied_conditions_do_not_hide_the_workload_as_asked(
    synthetic_study: Study,
) -> None:
    trial = synthetic_study.trials[0]
    asked = trial.metric("ttft_s")
    assert asked is not None
    varied = replace(asked, samples=(99.0,), condition=read_condition("prompt_tokens=256"))
    more = replace(trial, measurements=(*trial.measurements, varied))
    document = study_document(synthetic_study.with_trials((more,)))
    assert document["trials"][0]["metrics"]["ttft_s"]["value"] == asked.value
