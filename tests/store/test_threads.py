"""Many threads, one store; and two stores on one file, which really conflict."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import StoreError
from core.journal import events
from core.report import Report
from core.study import Study
from store import Store, TrialFilter, open_store
from tests.evidence.store import threads

THREADS = 16


def together(work: Callable[[int], object], threads: int = THREADS) -> list[object]:
    """What `work` gives in each thread, all let go at once; an exception in one is raised here."""
    gate = threading.Barrier(threads)

    def run(number: int) -> object:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def test_what_threads_wrote_is_all_there_and_readers_see_whole_batches(store: Store, make):
    studies = [make.study(f"s-{number:02}") for number in range(THREADS)]

    def write_and_read(number: int) -> int:
        study = studies[number]
        store.ingest([events.study_created(study)])
        kept = 1
        for place in range(4):
            trial = make.trial(study, f"{study.id}-t{place}", f"static-batch:size={number + 1}")
            kept += store.ingest([events.trial_queued(trial), *make.story(study, trial)])
            own = store.study(study.id)
            assert len(own.trials) == place + 1
            assert all(one.plan == trial.plan for one in own.trials)
            other = store.study(studies[(number * 7 + place) % THREADS].id)
            for one in other.trials if other else ():
                assert (one.state, one.measurements) == ("done", make.measurements())
                assert one.study_id == other.id
            for row in store.trial_rows(TrialFilter(study_id=study.id)):
                assert (row["title"], row["ttft_s"]) == (trial.plan.title, 0.25)
        return kept

    assert sum(together(write_and_read)) == THREADS * (1 + 4 * 15)
    assert store.count_trials(TrialFilter(states=("done",))) == THREADS * 4
    assert [one.trials for one in store.studies()] == [4] * THREADS


def test_threads_that_bring_the_same_events_keep_each_once(store: Store, make):
    _, told = make.whole()

    kept = together(lambda number: store.ingest(told[number % 3 :]))

    assert sum(kept) == len(told)
    assert [len(trial.measurements) for trial in store.study("s-1").trials] == [7, 7, 7]


def test_two_stores_on_one_file_try_again_when_they_collide(file: Path, make):
    stores = [open_store(str(file)) for _ in range(4)]
    told = [event for number in range(3) for event in make.whole(f"s-{number}")[1]]

    kept = together(lambda number: sum(stores[number].ingest([one]) for one in told), threads=4)

    assert sum(kept) == len(told)
    for store in stores:
        assert [one.trials for one in store.studies()] == [3] * 3
        found = [trial for one in store.studies() for trial in store.study(one.id).trials]
        assert all(trial.measurements == make.measurements() for trial in found)
        store.close()


def test_of_sixteen_threads_one_saves_a_report_version(store: Store, make):
    study: Study = make.study()
    report = Report("r-1", 1, "Title", study, (), "", "2026-11-21T10:00:00.000")

    def save(number: int) -> int:
        try:
            store.save_report(report)
        except StoreError:
            return 0
        return 1

    assert sum(together(save)) == 1
    assert store.reports() == (report,)


def test_a_conflict_that_never_ends_becomes_a_sentence(file: Path, make, monkeypatch):
    from sqlalchemy import exc

    from store import bulk, repository

    tried = []

    class TransactionException(Exception):
        """As DuckDB calls it."""

    def collide(*_: object) -> set[str]:
        tried.append(1)
        raise exc.OperationalError("insert", {}, TransactionException("Conflict on update!"))

    monkeypatch.setattr(bulk, "known_ids", collide)
    monkeypatch.setattr(repository.time, "sleep", lambda seconds: None)
    store = open_store(str(file))

    with pytest.raises(StoreError, match=r"trimtab.duckdb failed: Conflict on update!"):
        store.ingest(make.whole()[1])

    assert len(tried) == 12
    store.close()


def collisions(monkeypatch) -> list[str]:
    """The classes of the conflicts that are tried again from now on."""
    from store import repository

    seen: list[str] = []
    judge = repository._is_conflict

    def noted(error) -> bool:
        if judge(error):
            seen.append(f"{type(error).__name__} {type(error.orig).__name__}")
        return judge(error)

    monkeypatch.setattr(repository, "_is_conflict", noted)
    return seen


@pytest.mark.parametrize(
    ("place", "when", "conflict"),
    [
        ("file", "before our insert", "IntegrityError ConstraintException"),
        ("file", "before our commit", "OperationalError TransactionException"),
        ("database", "before our insert", "IntegrityError UniqueViolation"),
    ],
)
def test_who_is_overtaken_with_the_same_event_tries_again(
    request, make, monkeypatch, place, when, conflict
):
    from store import bulk
    from store.health import marks

    url = str(request.getfixturevalue(place))
    store, other = open_store(url), open_store(url)
    store.ingest(make.whole()[1])
    ours = [events.event("note", "s-1", "s-1-t0", attempt=1, text=text) for text in "ab"]
    seen = collisions(monkeypatch)
    module, name = (bulk, "known_ids") if when == "before our insert" else (marks, "keep")
    step, overtook = getattr(module, name), []

    def overtaken(*given):
        found = step(*given)
        if not overtook:
            overtook.append(1)
            assert other.ingest(ours[1:]) == 1
        return found

    monkeypatch.setattr(module, name, overtaken)

    assert store.ingest(ours) == 1

    assert seen == [conflict]
    assert store.trial("s-1-t0").notes == ("attempt 1", "a", "b")
    for one in (store, other):
        one.close()


@pytest.mark.parametrize("place", ["file", "database"])
def test_mixed_writes_of_many_threads_are_kept_as_they_were_acknowledged(request, capsys, place):
    url = str(request.getfixturevalue(place))

    assert threads.run(threads=8, writes=21, stores=3, url=url)

    assert "; 0 lost, unretried or wrong" in capsys.readouterr().out
