"""What of a folder from elsewhere is believed: lines and files that are not are named, and nothing
of a study that cannot be one is kept.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.ingest import ingest
from app.jobs import elsewhere
from core.errors import BadInput
from core.journal.events import ReportSaved, event
from core.journal.journal import Journal
from core.report import Report
from core.study import Study
from store.interface import Store
from tests.app.journals import write


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Where the store keeps journals."""
    return tmp_path / "store.studies"


def test_an_event_of_another_trial_is_named_with_its_line(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    place = write(synthetic_study, tmp_path / "box")
    with Journal(place / "t-0001-1.jsonl") as journal:
        journal.append(event("note", synthetic_study.id, "t-0002", attempt=1, text="not mine"))
        journal.append(event("note", "s-other", "t-0001", attempt=1, text="not mine"))
    count = len((place / "t-0001-1.jsonl").read_bytes().splitlines())
    notices = ingest(store, studies, tmp_path / "box").notices
    wanted = f"t-0001-1.jsonl, line {count} was not taken: it is an event of another trial"
    assert any(wanted in notice for notice in notices)
    assert "not mine" not in store.trial("t-0002").notes  # type: ignore[union-attr]


def test_a_journal_of_another_study_is_not_taken(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    place = write(synthetic_study, tmp_path / "box")
    shutil.copy(place / "t-0001-1.jsonl", place / "t-0002-2.jsonl")
    (place / "t-0003-2.jsonl").write_text("nothing\n")
    notices = ingest(store, studies, tmp_path / "box").notices
    assert {Path(notice.split(" was not taken")[0]).name for notice in notices} == {
        "t-0002-2.jsonl",
        "t-0003-2.jsonl",
    }
    assert not (studies / synthetic_study.id / "t-0002-2.jsonl").exists()


def _foreign_first_line(place: Path) -> None:
    text = (place / "study.jsonl").read_text()
    (place / "study.jsonl").write_text(text.replace('"study":"s-synthetic"', '"study":"../up"', 1))


def _a_link(place: Path) -> None:
    shutil.move(place / "t-0001-1.jsonl", place / "elsewhere")
    (place / "t-0001-1.jsonl").symlink_to(place / "elsewhere")


def _too_large(place: Path) -> None:
    with (place / "t-0001-1.jsonl").open("r+b") as file:
        file.truncate(elsewhere.LONGEST[".jsonl"] + 1)


def _nothing(place: Path) -> None:
    (place / "study.jsonl").write_text("")


def _cut_beginning(place: Path) -> None:
    text = (place / "study.jsonl").read_text()
    (place / "study.jsonl").write_text(text.partition("\n")[2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_foreign_first_line, "line 1 does not say of which study"),
        (_a_link, "t-0001-1.jsonl is a link"),
        (_too_large, "larger than the 512 MiB"),
        (_nothing, "line 1 does not say of which study"),
        (_cut_beginning, "does not say what study it is of"),
    ],
)
def test_what_cannot_be_a_study_is_one_sentence_and_leaves_nothing(
    spoil, words: str, store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    spoil(write(synthetic_study, tmp_path / "box"))
    with pytest.raises(BadInput, match=words):
        ingest(store, studies, tmp_path / "box")
    assert not studies.exists()
    assert store.studies() == ()


def test_a_report_does_not_come_with_a_study(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    place = write(synthetic_study, tmp_path / "box")
    report = Report("r-1", 1, "made up", synthetic_study, ("t-0000",), "t-0000", "", "")
    with Journal(place / "study.jsonl") as journal:
        journal.append(ReportSaved(report).event(synthetic_study.id))
    with pytest.raises(BadInput, match="holds a report"):
        ingest(store, studies, tmp_path / "box")


def test_a_clock_that_is_ahead_is_named(
    store: Store,
    studies: Path,
    tmp_path: Path,
    synthetic_study: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(synthetic_study, tmp_path / "box")
    monkeypatch.setattr(elsewhere, "now", lambda: "2026-01-01T00:00:00.000")
    with pytest.raises(BadInput, match="set the clocks right"):
        ingest(store, studies, tmp_path / "box")


def test_a_disk_that_does_not_read_is_named(
    store: Store,
    studies: Path,
    tmp_path: Path,
    synthetic_study: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(synthetic_study, tmp_path / "box")

    def examine(path: Path, study_id: str) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(elsewhere, "examine", examine)
    with pytest.raises(BadInput, match=r"study\.jsonl cannot be read|cannot be read \(Input"):
        ingest(store, studies, tmp_path / "box")
