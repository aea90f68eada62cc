"""What becomes of a study that was begun on another machine: where it goes on, and where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.ingest import ingest
from app.jobs.elsewhere import HERE
from app.jobs.going_on import why_not_here
from app.jobs.supervisor import Supervisor
from app.planning import plan_again
from core.errors import BadInput
from core.journal.events import StudyStateChanged
from core.journal.journal import Journal
from core.machine.naming import machine_name
from core.machine.targets import detect_local
from core.study import Study
from store import open_store
from store.interface import Store
from tests.app.journals import FACTS, write


@pytest.fixture
def store() -> Store:
    return open_store("memory:")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Where the store keeps journals."""
    return tmp_path / "store.studies"


def test_a_study_of_a_gpu_does_not_go_on_where_there_is_none(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    target = replace(synthetic_study.case.target, kind="cuda")
    study = replace(synthetic_study, case=replace(synthetic_study.case, target=target))
    write(study, tmp_path / "box", ("begin",))
    ingest(store, studies, tmp_path / "box")
    supervisor = Supervisor(store, studies)
    with pytest.raises(BadInput, match="has no GPU that the installed torch could drive"):
        supervisor.resume(study.id)
    supervisor.close()
    kept = (studies / study.id / "study.jsonl").read_bytes()
    assert kept == (tmp_path / "box" / study.id / "study.jsonl").read_bytes()


def test_a_study_begun_elsewhere_does_not_go_on_here_and_its_journal_stays(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    box = tmp_path / "box"
    write(synthetic_study, box, ("begin",))
    ingest(store, studies, box)
    supervisor = Supervisor(store, studies)
    with pytest.raises(BadInput, match=r"does not mix machines: .*trimtab bundle s-synthetic"):
        supervisor.resume(synthetic_study.id)
    supervisor.cancel(synthetic_study.id)
    supervisor.close()
    own = box / synthetic_study.id / "study.jsonl"
    assert (studies / synthetic_study.id / "study.jsonl").read_bytes() == own.read_bytes()
    cancelled = store.study(synthetic_study.id)
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    write(synthetic_study, box, ("trials", "end"))
    assert ingest(store, studies, box).new > 100


def test_a_study_whose_trials_are_of_another_machine_does_not_go_on_here(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    """Also where its journals came with a backup, so that nothing else tells it."""
    write(synthetic_study, tmp_path / "box", ("begin", "trials"))
    ingest(store, studies, tmp_path / "box")
    (studies / synthetic_study.id / HERE).unlink()
    study = store.study(synthetic_study.id)
    assert study is not None
    assert machine_name(FACTS) in (why_not_here(store, studies, study) or "")


def test_a_study_that_was_measured_elsewhere_is_measured_again_for_this_machine(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    target = replace(detect_local(), title="This machine: another processor, 96 cores")
    case = replace(synthetic_study.case, target=target)
    again, plans = plan_again(replace(synthetic_study, case=case))
    assert again.parent_id == synthetic_study.id
    assert again.case.target.title == detect_local().title
    assert {plan.case.target.title for plan in plans} == {detect_local().title}
    workload = replace(case.workload, trace=str(tmp_path / "gone.csv"))
    with pytest.raises(BadInput, match=r"gone\.csv, which is not on this machine"):
        plan_again(replace(synthetic_study, case=replace(case, workload=workload)))


def test_one_that_ended_by_an_earlier_clock_has_ended_here(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    box = tmp_path / "box"
    write(synthetic_study, box, ("begin",))
    ingest(store, studies, box)
    write(synthetic_study, box, ("trials", "end"))
    with Journal(studies / synthetic_study.id / HERE) as journal:
        journal.append(StudyStateChanged("paused", "later").event(synthetic_study.id))
    assert ingest(store, studies, box).new > 100
    study = store.study(synthetic_study.id)
    assert study is not None
    assert study.state == "done"
