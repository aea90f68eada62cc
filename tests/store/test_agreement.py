"""The stores answer alike, whatever happened."""

from __future__ import annotations

import pytest

from store import TrialFilter, open_store

FILTERS = (
    TrialFilter(),
    TrialFilter(study_id="s-1"),
    TrialFilter(states=("done", "running")),
    TrialFilter(technique="static-batch"),
    TrialFilter(text="size=2"),
)


@pytest.mark.parametrize("place", ["file", "database"])
@pytest.mark.parametrize("seed", range(12))
def test_memory_and_a_database_answer_alike(request, make, seed: int, place: str):
    memory, kept = open_store("memory:"), open_store(str(request.getfixturevalue(place)))
    told = make.random_events(seed)
    for start in range(0, len(told), 11):
        batch = told[start : start + 11]
        assert memory.ingest(batch) == kept.ingest(batch)

    assert memory.studies() == kept.studies()
    ids = [study.id for study in memory.studies()]
    assert memory.environments_of_studies(ids) == kept.environments_of_studies(ids)
    for study in memory.studies():
        assert memory.study(study.id) == kept.study(study.id)
        assert memory.progress(study.id) == kept.progress(study.id)
    for wanted in FILTERS:
        rows = memory.trial_rows(wanted)
        assert rows == kept.trial_rows(wanted)
        assert memory.count_trials(wanted) == kept.count_trials(wanted) == len(rows)
        ids = [row["id"] for row in rows]
        assert memory.environments_of(ids) == kept.environments_of(ids)
        for row in rows:
            assert memory.trial(row["id"]) == kept.trial(row["id"])
    kept.close()
