"""The documented JSON: exactly its keys, null for what is unknown, nothing that JSON cannot say."""

from __future__ import annotations

import json

from core.documents import study_document
from core.study import Study


def test_the_document_has_the_documented_keys(synthetic_study: Study) -> None:
    document = json.loads(json.dumps(study_document(synthetic_study), allow_nan=False))
    assert list(document) == ["study", "baseline", "frontier", "recommendation", "trials"]
    assert list(document["study"]) == [
        "id", "model", "target", "workload", "priorities", "limits", "margins", "data", "state",
    ]  # fmt: skip
    assert set(document["recommendation"]) == {"trial", "because", "rejected"}
    ids = {trial["id"] for trial in document["trials"]}
    assert document["baseline"] in ids
    assert set(document["frontier"]) <= ids
    assert set(document["recommendation"]["rejected"]) <= ids
    for trial in document["trials"]:
        assert set(trial) == {"id", "plan", "state", "reason", "kernels", "metrics", "margins"}
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
