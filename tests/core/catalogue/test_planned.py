"""A model is measured only while its files are those that were planned."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.catalogue import models
from core.catalogue.planned import FILE, checked, planned_files
from core.engine.load.load import load_engine
from core.errors import Refused
from core.files import fingerprint
from core.files.fingerprint import file_digest, from_json
from core.files.listing import SINGLE
from core.journal import codec
from core.measure.trial import run_trial
from core.model import Model
from core.plan import Case, Plan
from core.priorities import Priorities
from core.study import Study, Trial
from core.target import Target
from core.workload import Workload
from tests.core.engine.transformers_models import transformers_model

PLACE = Target("here", "Here", "cpu", "local", 10**9, None, (), local=True)
SHORT = Workload("short", "Short", "text", prompt_tokens=8, output_tokens=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformers_model("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def flip(path: Path, at: int = -1) -> None:
    """Change one byte in place; size and times look as before."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def measured(model: Model, planned: fingerprint.Fingerprint | None) -> list[Any]:
    """Events of a trial, which must be refused."""
    events: list[Any] = []
    plan = Plan(Case(model, PLACE, SHORT))
    with pytest.raises(Refused, match="changed since this study was planned") as refusal:
        run_trial(plan, "quick", "e", lambda kind, **_: events.append(kind), planned)
    assert model.id in str(refusal.value)
    assert "plan a new study" in str(refusal.value)
    return [kind for kind in events if kind != "progress"]


def test_a_weight_that_changed_since_it_was_planned_is_not_measured(folder: Path) -> None:
    model = models.resolve(str(folder))
    flip(folder / SINGLE)
    assert measured(model, None) == []


def test_the_refusal_names_the_file_that_changed(folder: Path, tmp_path: Path) -> None:
    model = models.resolve(str(folder))
    planned = planned_files(model, tmp_path)
    assert planned is not None
    flip(folder / SINGLE)
    with pytest.raises(Refused, match=r"model: model\.safetensors changed since"):
        checked(model, planned)
    assert measured(model, planned) == []


def test_a_byte_that_no_piece_of_the_revision_reads_counts_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.files import folder as folders

    monkeypatch.setattr(folders, "WHOLE_BYTES", 0)
    monkeypatch.setattr(folders, "PIECE_BYTES", 1)
    model = models.resolve(str(folder))
    planned = planned_files(model, tmp_path)
    flip(folder / SINGLE, at=-3)
    assert models.resolve(str(folder)).revision == model.revision
    with pytest.raises(Refused, match=r"model\.safetensors changed"):
        checked(model, planned)


def test_what_says_where_a_text_ends_belongs_to_the_model(folder: Path, tmp_path: Path) -> None:
    model = models.resolve(str(folder))
    planned = planned_files(model, tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    with pytest.raises(Refused, match=r"generation_config\.json changed"):
        checked(model, planned)


def test_a_file_that_changes_while_it_is_loaded_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.engine.load import load

    found = checked(models.resolve(str(folder)))
    real = load._engine

    def slow(*given: Any) -> Any:
        engine = real(*given)
        flip(folder / SINGLE)
        return engine

    monkeypatch.setattr(load, "_engine", slow)
    with pytest.raises(Refused, match=r"model\.safetensors changed"):
        load_engine(found)


def test_a_baseline_that_is_loaded_later_is_compared_again(folder: Path) -> None:
    found = checked(models.resolve(str(folder)))
    load_engine(found)
    flip(folder / SINGLE)
    with pytest.raises(Refused, match=r"model\.safetensors changed"):
        load_engine(found)


def test_the_folder_of_a_study_keeps_the_first_fingerprint(folder: Path, tmp_path: Path) -> None:
    model = models.resolve(str(folder))
    first = planned_files(model, tmp_path)
    assert first is not None
    assert (tmp_path / FILE).exists()
    flip(folder / SINGLE)
    assert planned_files(model, tmp_path) == first
    # A folder that is no longer the plan's leaves no fingerprint: the trial will refuse it.
    other = tmp_path / "other"
    other.mkdir()
    assert planned_files(model, other) is None
    assert not (other / FILE).exists()
    shape = replace(model, source="shape")
    assert planned_files(shape, other) is None


def test_a_gguf_file_is_compared_too(folder: Path, tmp_path: Path) -> None:
    from core.artefacts.apply import lay_out
    from core.artefacts.contents import contents
    from core.artefacts.save import write_folder
    from core.files.folder import check_folder

    engine = load_engine(str(folder))
    found = contents(engine, check_folder(folder).config)
    write_folder(tmp_path / "g", lay_out(found, "gguf", {}, "tiny").files(), 0)
    model = models.resolve(str(tmp_path / "g"))
    planned = planned_files(model, tmp_path)
    checked(model, planned)
    flip(tmp_path / "g" / "model.gguf")
    with pytest.raises(Refused, match=r"model\.gguf changed"):
        checked(model, planned)


def test_a_snapshot_of_the_hub_is_found_where_it_was_planned(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer snapshot that came meanwhile is not looked up again."""
    monkeypatch.setattr(models, "hub_folder", lambda name: folder)
    model = models.resolve("owner/name")
    planned = planned_files(model, tmp_path)
    monkeypatch.delattr(models, "hub_folder")
    found = checked(model, planned)
    assert torch.is_tensor(load_engine(found).embedding)


def test_a_file_is_hashed_once_and_again_when_it_was_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    real = fingerprint.hashlib.file_digest
    monkeypatch.setattr(
        fingerprint.hashlib,
        "file_digest",
        lambda *given: reads.append(1) or real(*given),  # type: ignore[func-returns-value]
    )
    path = folder / SINGLE
    file_digest(path)
    file_digest(path)
    assert len(reads) == 2, "a file of this moment may be written again within the clock's tick"
    later = time.time_ns() + 10**10
    monkeypatch.setattr(fingerprint.time, "time_ns", lambda: later)
    before = file_digest(path)
    assert (file_digest(path), len(reads)) == (before, 3)
    flip(path)
    assert file_digest(path) != before


def test_the_worker_refuses_what_is_no_longer_the_files_of_its_job(
    folder: Path, tmp_path: Path
) -> None:
    from core.measure import worker

    model = models.resolve(str(folder))
    planned = planned_files(model, tmp_path)
    assert planned is not None
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    plan = codec.dumps(Plan(Case(model, PLACE, SHORT)))
    kinds: list[str] = []
    job = {"plan": plan, "preset": "quick", "files": planned.to_json()}
    state, reason = worker.run(job, lambda kind, **_: kinds.append(kind))
    assert (state, "generation_config.json changed" in reason) == ("refused", True)
    assert "measurement" not in kinds


def test_the_job_of_a_trial_carries_the_files_of_its_study(folder: Path, tmp_path: Path) -> None:
    from core.measure.child.child import Child
    from core.measure.child.limits import limits_for
    from core.measure.child.spawn import ChildStart

    model = models.resolve(str(folder))
    case = Case(model, PLACE, SHORT)
    jobs: list[dict[str, Any]] = []

    def capture(start: ChildStart) -> Any:
        jobs.append(json.loads(start.job))
        raise RuntimeError("no process is wanted")

    study = Study("s-1", case, Priorities())
    trial = Trial("t-1", study.id, Plan(case))
    limits = limits_for(trial.plan, "quick")
    for number in (1, 2):
        with pytest.raises(RuntimeError, match="no process"):
            Child(tmp_path, study, trial, number, limits, capture)
        flip(folder / SINGLE)
    assert jobs[0]["files"]["path"] == str(folder)
    assert jobs[0]["files"] == jobs[1]["files"]


def test_a_damaged_record_is_no_fingerprint() -> None:
    assert from_json({"path": "x", "files": {"a": 1}}) is None
    assert from_json(None) is None
    assert from_json([]) is None
