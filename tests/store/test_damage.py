"""Rows that were damaged after they were kept: the sentence names them, everything else stays
readable.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from core.errors import StoreError
from core.report import Report
from store import TrialFilter, open_store


@pytest.fixture
def damaged(file: Path, make):
    """A store of two studies after a statement was run on its file."""
    opened = []

    def damage(statement: str):
        store = open_store(str(file))
        for study_id in ("s-1", "s-2"):
            store.ingest(make.whole(study_id)[1])
        store.save_report(Report("r-1", 1, "Title", store.study("s-1"), (), "", "2026-11-21"))
        store.close()
        with duckdb.connect(str(file)) as connection:
            connection.execute(statement)
        opened.append(open_store(str(file)))
        return opened[0]

    yield damage
    for store in opened:
        store.close()


NEWER = '{"version":99,"value":{}}'
NO_STUDY = '{"version":1,"value":[1,2]}'


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            f"update studies set document = '{NEWER}' where study_id = 's-1'",
            "study s-1 cannot be read",
        ),
        (
            f"update studies set document = '{NO_STUDY}' where study_id = 's-1'",
            "study s-1 cannot be read",
        ),
        ("delete from study_states where study_id = 's-1'", "study s-1 cannot be read"),
        (
            f"update trials set plan = '{NEWER}' where trial_id = 's-1-t1'",
            "trial s-1-t1 of study s-1",
        ),
        (
            f"update trials set plan = '{NO_STUDY}' where trial_id = 's-1-t1'",
            "trial s-1-t1 of study s-1",
        ),
        (
            "update trials set plan = replace(plan::varchar, 'weight-int8', 'weight-int7') "
            "where trial_id = 's-1-t1'",
            "unknown technique 'weight-int7'",
        ),
        ("delete from trial_states where trial_id = 's-1-t1'", "trial s-1-t1 of study s-1"),
        (
            "update measurements set origin = 'dreamt' where trial_id = 's-1-t1'",
            "trial s-1-t1 of study s-1",
        ),
        (
            "update measurements set samples = '{}' where trial_id = 's-1-t1'",
            "trial s-1-t1 of study s-1",
        ),
        (
            "update measurements set samples = '[\"a\"]' where trial_id = 's-1-t1'",
            "trial s-1-t1 of study s-1",
        ),
    ],
)
def test_a_damaged_row_is_named_and_the_rest_can_be_read(damaged, statement, named):
    store = damaged(statement)

    with pytest.raises(StoreError) as caught:
        store.study("s-1")

    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.study("s-2").state == "done"
    assert store.trial("s-1-t0").state == "done"
    assert "s-2" in [one.id for one in store.studies()]
    assert len(store.trial_rows(TrialFilter(study_id="s-2"))) == 3
    assert store.report("r-1").study.id == "s-1"


def test_a_damaged_report_is_named(damaged):
    store = damaged(f"update reports set document = '{NEWER}'")

    with pytest.raises(
        StoreError, match="report r-1 version 1 cannot be read: stored data has version 99"
    ):
        store.reports()

    assert store.study("s-1").state == "done"


def test_damaged_facts_are_named(damaged):
    store = damaged("update environments set facts = '[1]'")

    with pytest.raises(StoreError, match="environment env-1 cannot be read"):
        store.environment("env-1")


def test_a_lost_table_is_a_sentence(damaged):
    store = damaged("drop table measurements")

    with pytest.raises(
        StoreError, match=r"trimtab.duckdb failed: Catalog Error: Table .*measurements"
    ):
        store.study("s-1")
