"""Taking in studies that were measured elsewhere: once, twice, further, and not when something is
wrong with them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli import main as cli
from app.ingest import ingest
from app.jobs.elsewhere import HERE
from core.errors import BadInput
from core.study import Study
from store import open_store
from store.health.recovery import open_checked
from store.interface import Store
from tests.app.journals import BOX, FACTS, write


@pytest.fixture
def store() -> Store:
    return open_store("memory:")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Where the store keeps journals."""
    return tmp_path / "store.studies"


def bare(study: Study | None) -> Study:
    """Without attempts and times: the journals of the test have those of now."""
    assert study is not None
    trials = (replace(t, attempt=0, started_at="", ended_at="") for t in study.trials)
    return study.with_trials(tuple(trials))


def test_a_study_is_taken_in_with_the_machine_that_it_ran_on(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    write(synthetic_study, tmp_path / "box")
    taken = ingest(store, studies, tmp_path / "box")
    assert taken.study_ids == (synthetic_study.id,)
    assert taken.notices == ()
    assert taken.new > 100
    assert [machine.rpartition(", ")[0] for machine in taken.machines] == [BOX]
    assert bare(store.study(synthetic_study.id)) == bare(synthetic_study)
    assert store.environment("env-7f3a") == FACTS
    assert (studies / synthetic_study.id / "t-0000-1.log").exists()


@pytest.mark.parametrize("place", ["box", "box/s-synthetic", "renamed/other"])
def test_the_folder_is_a_studys_or_holds_some(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study, place: str
) -> None:
    written = write(synthetic_study, tmp_path / "box")
    if place.startswith("renamed"):
        shutil.copytree(written, tmp_path / place)
    assert ingest(store, studies, tmp_path / place).study_ids == (synthetic_study.id,)


def test_doing_it_again_changes_nothing(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    write(synthetic_study, tmp_path / "box")
    first = ingest(store, studies, tmp_path / "box")
    before = {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()}
    again = ingest(store, studies, tmp_path / "box")
    assert (again.new, again.notices, again.machines) == (0, (), first.machines)
    assert {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()} == before


def test_a_study_that_went_on_there_goes_on_here(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    box = tmp_path / "box"
    write(synthetic_study, box, ("begin",))
    ingest(store, studies, box)
    begun = store.study(synthetic_study.id)
    assert begun is not None
    assert begun.state == "paused"
    assert "go on with it where it was measured" in begun.reason
    assert ingest(store, studies, box).new == 0
    write(synthetic_study, box, ("trials", "end"))
    assert ingest(store, studies, box).new > 100
    assert bare(store.study(synthetic_study.id)) == bare(synthetic_study)
    shorter = tmp_path / "shorter"
    write(synthetic_study, shorter / "new", ("begin",))
    own = (box / synthetic_study.id / "study.jsonl").read_bytes()
    (shorter / "new" / synthetic_study.id / "study.jsonl").write_bytes(own[: len(own) // 2])
    assert ingest(store, studies, shorter / "new").new == 0
    assert (studies / synthetic_study.id / "study.jsonl").read_bytes() == own


def test_a_store_that_is_made_again_has_it(
    studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    url = str(tmp_path / "store.duckdb")
    write(synthetic_study, tmp_path / "box")
    first, _ = open_checked(url, studies)
    ingest(first, studies, tmp_path / "box")
    kept = first.study(synthetic_study.id)
    first.close()
    Path(url).unlink()
    second, _ = open_checked(url, studies)
    assert second.study(synthetic_study.id) == kept
    second.close()


def test_a_study_that_begins_otherwise_is_refused_and_nothing_is_touched(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    write(synthetic_study, tmp_path / "box")
    ingest(store, studies, tmp_path / "box")
    before = {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()}
    other = write(replace(synthetic_study, seed=7), tmp_path / "other")
    theirs = {path: path.read_bytes() for path in other.rglob("*")}
    with pytest.raises(BadInput, match=r"does not begin as the journal study\.jsonl"):
        ingest(store, studies, tmp_path / "other")
    assert {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()} == before
    assert {path: path.read_bytes() for path in other.rglob("*")} == theirs
    assert store.study(synthetic_study.id).seed == synthetic_study.seed  # type: ignore[union-attr]
    # The marks tell it too when the journals here are gone.
    shutil.rmtree(studies / synthetic_study.id)
    with pytest.raises(BadInput, match="does not begin as"):
        ingest(store, studies, tmp_path / "other")


def test_a_changed_line_is_named_and_the_rest_is_kept(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    place = write(synthetic_study, tmp_path / "box")
    path = place / "t-0001-1.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"0.", b"9.", 1)
    path.write_bytes(b"\n".join(lines))
    notices = ingest(store, studies, tmp_path / "box").notices
    assert any("t-0001-1.jsonl, line 4" in notice for notice in notices)
    study = store.study(synthetic_study.id)
    assert study is not None
    trial = study.trial("t-0001")
    assert trial is not None
    assert len(trial.measurements) == len(synthetic_study.trials[1].measurements) - 1


def test_a_folder_without_journals_is_named(store: Store, studies: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no journals"):
        ingest(store, studies, tmp_path)
    with pytest.raises(BadInput, match="is not a folder"):
        ingest(store, studies, tmp_path / "nothing")


def test_one_of_several_that_is_refused_keeps_no_other_out(
    store: Store, studies: Path, tmp_path: Path, synthetic_study: Study
) -> None:
    write(synthetic_study, tmp_path / "box")
    other = write(replace(synthetic_study, id="s-other"), tmp_path / "box", ("begin",))
    (other / "study.jsonl").write_text("")
    taken = ingest(store, studies, tmp_path / "box")
    assert taken.study_ids == (synthetic_study.id,)
    assert taken.refused == 1
    assert len(taken.notices) == 1


def test_the_command_takes_it_in_and_what_is_here_is_shown(
    tmp_path: Path, synthetic_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    write(synthetic_study, tmp_path / "box")
    words = ("--store", str(tmp_path / "store.duckdb"))
    assert cli.main(["ingest", str(tmp_path / "box"), *words]) == 0
    out = capsys.readouterr().out
    assert f"measured on {BOX}" in out
    assert f"trimtab show {synthetic_study.id}" in out
    assert cli.main(["ingest", str(tmp_path / "box"), "--json", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["studies"] == [synthetic_study.id]
    assert document["new"] == 0
    assert cli.main(["show", synthetic_study.id, *words]) == 0
    assert "t-0001" in capsys.readouterr().out
    assert cli.main(["compare", "t-0000", "t-0001", *words]) == 0
    assert cli.main(["report", "new", synthetic_study.id, "--title", "Taken", *words]) == 0
    assert cli.main(["doctor", "--check-store", *words]) == 0
    assert cli.main(["ingest", str(tmp_path / "none"), *words]) == 2
    assert HERE not in {path.name for path in tmp_path.rglob("*")}
