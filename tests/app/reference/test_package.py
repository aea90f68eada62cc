"""The reference study: made from what a GPU left, read with checks, taken in once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as cli
from app.reference import package
from app.reference.__main__ import main
from app.reference.making import make
from app.reference.package import DATA, MANIFEST, reference, take_in
from core.errors import BadInput
from core.journal.events import study_created
from core.journal.journal import Journal
from core.study import Study
from store import open_store
from tests.app.reference.conftest import H200, LINE, on_gpu, pack, write


@pytest.fixture
def shipped(results: Path, tmp_path: Path) -> Path:
    """The folder of a package."""
    make([results], tmp_path / "data")
    return tmp_path / "data"


def test_what_ships_with_this_version_is_whole_or_not_there(tmp_path: Path) -> None:
    known = reference()
    assert (known is not None) == (DATA / MANIFEST).exists()
    if known is not None:
        assert take_in(open_store("memory:"), tmp_path, known).notices == ()


def test_nothing_ships_where_there_is_no_manifest(tmp_path: Path) -> None:
    assert reference(tmp_path) is None


def test_a_package_is_made_read_and_taken_in_once(shipped: Path, tmp_path: Path) -> None:
    known = reference(shipped)
    assert known is not None
    assert known.line == LINE
    (study,) = known.studies
    assert (study.id, study.title, study.trials) == ("s-gpu", "pycode, chat", 3)
    store = open_store("memory:")
    first = take_in(store, tmp_path / "studies", known)
    assert first.study_ids == ("s-gpu",)
    assert first.new > 0
    assert first.notices == ()
    again = take_in(store, tmp_path / "studies", known)
    assert (again.study_ids, again.new) == (("s-gpu",), 0)
    stored = store.study("s-gpu")
    assert stored is not None
    assert stored.state == "done"
    assert len(store.studies()) == 1


def test_the_same_results_make_the_same_package(
    results: Path, shipped: Path, tmp_path: Path
) -> None:
    run = pack(results, tmp_path / "run" / "journals.tar.gz")
    (run.parent / "summary.json").write_text('{"rehearsal": false}')
    for source in (run, run.parent, results / "s-gpu"):
        make([source], tmp_path / "again")
        for path in shipped.iterdir():
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"date": ""}, "date is missing"),
        ({"driver": 580}, "driver is missing or not a text"),
        ({"file": "../journals.tar.gz"}, "no name of a file"),
        ({"studies": []}, "at least one study"),
        ({"studies": ["s-gpu"]}, "no object"),
        ({"studies": [{"id": "s-1", "model": "m", "workload": "w", "batch": 0, "trials": 1}]},
         "batch of a study"),
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(shipped: Path, change: dict[str, Any], sentence: str) -> None:
    path = shipped / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match=sentence):
        reference(shipped)
    path.write_text("{")
    with pytest.raises(BadInput, match="not valid JSON"):
        reference(shipped)


def test_journals_that_are_missing_or_others_are_not_taken_in(
    shipped: Path, tmp_path: Path
) -> None:
    known = reference(shipped)
    assert known is not None
    archive = shipped / known.file
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    store = open_store("memory:")
    with pytest.raises(BadInput, match="its SHA-256 is not that of the manifest"):
        take_in(store, tmp_path / "studies", known)
    archive.unlink()
    with pytest.raises(BadInput, match="is missing from this installation"):
        take_in(store, tmp_path / "studies", known)
    assert store.studies() == ()


def test_a_rehearsal_is_not_shipped(results: Path, tmp_path: Path) -> None:
    (results / "environment.json").write_text('{"rehearsal": true}')
    with pytest.raises(BadInput, match="was a rehearsal"):
        make([results], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_machine_without_a_gpu_is_not_shipped(synthetic_study: Study, tmp_path: Path) -> None:
    study = on_gpu(synthetic_study)
    for number, facts in enumerate(
        (H200 | {"gpus": []}, H200 | {"versions": {"torch": "2.13.0+cpu"}}, H200 | {"driver": ""})
    ):
        folder = tmp_path / str(number)
        write(study, folder, facts)
        with pytest.raises(BadInput, match="has no GPU with a driver"):
            make([folder], tmp_path / "data")
    write(replace(study, case=synthetic_study.case), tmp_path / "cpu", H200)
    with pytest.raises(BadInput, match="not for the GPU"):
        make([tmp_path / "cpu"], tmp_path / "data")


def second(study: Study) -> Study:
    """Another study, measured in another environment."""
    trials = tuple(
        replace(
            trial,
            id=f"{trial.id}b",
            measurements=tuple(replace(row, environment="env-b") for row in trial.measurements),
        )
        for trial in on_gpu(study).trials
    )
    return replace(on_gpu(study), id="s-two", trials=trials)


def test_two_runs_on_one_kind_of_card_make_one_reference(
    results: Path, synthetic_study: Study, tmp_path: Path
) -> None:
    write(second(synthetic_study), tmp_path / "more", H200 | {"cores_online": 32})
    known = make([results, tmp_path / "more"], tmp_path / "data")
    assert known.line == LINE
    assert [study.id for study in known.studies] == ["s-gpu", "s-two"]
    taken = take_in(open_store("memory:"), tmp_path / "studies", known)
    assert taken.study_ids == ("s-gpu", "s-two")
    assert taken.notices == ()


@pytest.mark.parametrize(
    "other",
    [{"driver": "570.1"}, {"gpus": [{"name": "NVIDIA H100", "memory_bytes": 80 * 2**30}]}],
)
def test_two_cards_or_drivers_are_not_one_reference(
    results: Path, synthetic_study: Study, tmp_path: Path, other: dict[str, Any]
) -> None:
    write(second(synthetic_study), results, H200 | other)
    with pytest.raises(BadInput, match="on several cards"):
        make([results], tmp_path / "data")


def test_a_broken_chain_is_not_shipped(results: Path, tmp_path: Path) -> None:
    path = results / "s-gpu" / "t-0001-1.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"ttft_s"', b'"tpot_s"'))
    with pytest.raises(BadInput, match="is not whole"):
        make([results], tmp_path / "data")


def test_the_command_says_what_it_made_or_why_not(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(results), "-o", str(tmp_path / "data")]) == 0
    said = capsys.readouterr()
    assert LINE in said.out
    assert "s-gpu  pycode, chat: 3 trials" in said.out
    shutil.rmtree(results / "s-gpu")
    assert main([str(results), "-o", str(tmp_path / "none")]) == 2
    assert "holds no journals" in capsys.readouterr().err


def test_a_study_that_measured_nothing_stays_behind(
    results: Path, synthetic_study: Study, tmp_path: Path
) -> None:
    study = replace(on_gpu(synthetic_study), id="s-none", trials=())
    with Journal(results / "s-none" / "study.jsonl") as journal:
        journal.append(study_created(study))
    assert [study.id for study in make([results], tmp_path / "data").studies] == ["s-gpu"]


def test_ingest_takes_the_reference_in(
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["ingest", "--reference", "--store", str(tmp_path / "store.duckdb")]
    monkeypatch.setattr(package, "reference", lambda: reference(tmp_path / "none"))
    assert cli.main(words) == 2
    assert "no study measured on a GPU ships with this version" in capsys.readouterr().err
    monkeypatch.setattr(package, "reference", lambda: reference(shipped))
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "study s-gpu  pycode, chat: done, 3 trials" in said
    assert "measured on NVIDIA H200" in said
    assert cli.main(words) == 0
    assert "0 new events" in capsys.readouterr().out
    assert cli.main([*words, "results"]) == 2
    assert "needs a folder of journals, or --reference" in capsys.readouterr().err
    assert cli.main(["show", "s-gpu", "--store", str(tmp_path / "store.duckdb")]) == 0
    shown = capsys.readouterr().out
    assert "ran on NVIDIA H200, driver 580.95.05, torch 2.11.0+cu130" in shown
    assert cli.main(["studies", "--store", str(tmp_path / "store.duckdb")]) == 0
    assert "NVIDIA H200" in capsys.readouterr().out
