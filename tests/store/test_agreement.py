"""The two stores answer alike, whatever happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import TrialFilter, open_store

FILTERS = (
    TrialFilter(),
    TrialFilter(study_id="s-1"),
    TrialFilter(states=("done", "running")),
    TrialFilter(technique="static-batch"),
    TrialFilter(text="size=2"),
)


@pytest.mark.parametrize("seed", range(12))
def test_memory_and_duckdb_answer_alike(file: Path, make, seed: int):
    memory, duckdb = open_store("memory:"), open_store(str(file))
    told = make.random_events(seed)
    for start in range(0, len(told), 11):
        batch = told[start : start + 11]
        assert memory.ingest(batch) == duckdb.ingest(batch)

    assert memory.studies() == duckdb.studies()
    for study in memory.studies():
        assert memory.study(study.id) == duckdb.study(study.id)
        assert memory.progress(study.id) == duckdb.progress(study.id)
    for wanted in FILTERS:
        rows = memory.trial_rows(wanted)
        assert rows == duckdb.trial_rows(wanted)
        assert memory.count_trials(wanted) == duckdb.count_trials(wanted) == len(rows)
        for row in rows:
            assert memory.trial(row["id"]) == duckdb.trial(row["id"])
    duckdb.close()
