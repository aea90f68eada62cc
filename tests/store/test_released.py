"""R17: every store that a release wrote opens in the newest one, and says what it said then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.journal import codec
from store import TrialFilter, migrate, open_store
from tests.store import release

FIXTURES = Path(__file__).parent / "fixtures"
RELEASED = sorted(path.stem for path in FIXTURES.glob("*.sql"))


@pytest.fixture(params=RELEASED)
def released(request, tmp_path):
    """A store as a release left it: its file, and what it held and answered."""
    path = tmp_path / "old.duckdb"
    release.write(request.param, path)
    return path, request.param, release


def test_every_schema_before_the_newest_was_frozen():
    known = sorted(path.name[:4] for path in (migrate.SCRIPTS / "versions").glob("[0-9]*.py"))
    assert RELEASED[0] == known[0] == "0001"
    assert set(known[:-1]) <= set(RELEASED) <= set(known)


def test_the_fixture_is_what_the_release_held(released):
    path, revision, release = released
    frozen = release.expected(revision)["content"]
    columns = {table: facts["columns"] for table, facts in frozen.items()}

    assert release.content(path, columns) == frozen
    assert sum(facts["rows"] for facts in frozen.values()) > 100


def test_a_released_store_opens_and_every_row_is_kept(released):
    path, revision, release = released
    frozen = release.expected(revision)["content"]
    columns = {table: facts["columns"] for table, facts in frozen.items()}

    open_store(str(path)).close()

    assert release.content(path, columns) == frozen
    copy = path.with_name(f"old.duckdb.bak-{revision}")
    if revision == migrate.HEAD:
        assert not copy.exists()
    else:
        assert release.content(copy, columns) == frozen


def test_an_upgraded_store_answers_as_it_did_before(released, make):
    path, revision, release = released
    then = release.expected(revision)["answers"]
    store = open_store(str(path))
    now = release.answers(store)

    for part in ("studies", "rows", "progress"):
        assert len(now[part]) == len(then[part])
        for new, old in zip(now[part], then[part], strict=True):
            assert new | old == new
    for study_id, document in then["whole"].items():
        assert store.study(study_id) == codec.loads(document)
    assert [store.report("r-1", version) for version in (1, 2)] == [
        codec.loads(document) for document in then["reports"]
    ]
    assert now["environments"] == then["environments"]

    assert store.ingest(make.whole("s-new")[1]) > 0
    assert store.trial("s-new-t0").measurements == make.measurements()
    assert store.count_trials(TrialFilter()) == len(then["rows"]) + 3
    store.close()


def test_measurements_from_before_conditions_have_none(tmp_path):
    release.write("0001", tmp_path / "old.duckdb")
    store = open_store(str(tmp_path / "old.duckdb"))

    found = [
        one
        for summary in store.studies()
        for trial in store.study(summary.id).trials
        for one in trial.measurements
    ]

    assert len(found) == 15
    assert {(str(one.condition), one.reference) for one in found} == {("", ())}
    store.close()


def test_an_upgrade_that_was_killed_begins_again(released):
    path, revision, release = released
    frozen = release.expected(revision)["content"]
    columns = {table: facts["columns"] for table, facts in frozen.items()}
    # What a kill between the copy and the upgrade leaves: the copy, and the store as it was.
    shutil.copy(path, path.with_name(f"old.duckdb.bak-{revision}"))

    open_store(str(path)).close()

    assert release.content(path, columns) == frozen
