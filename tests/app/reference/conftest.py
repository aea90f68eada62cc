"""Journals as a machine with a GPU writes them: a tiny synthetic study, its facts made up here."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.ids import now
from core.journal.events import EnvironmentRecorded
from core.journal.journal import Journal
from core.study import Study
from core.target import Target
from tests.app.conftest import events_of

H200: dict[str, Any] = {
    "cpu": "Intel(R) Xeon(R) Platinum 8480C",
    "cores": 16,
    "cores_online": 16,
    "memory_bytes": 128 * 2**30,
    "gpus": [{"name": "NVIDIA H200", "memory_bytes": 139 * 2**30}],
    "driver": "580.95.05",
    "versions": {"torch": "2.11.0+cu130"},
}
# The events of a test are of today.
LINE = f"NVIDIA H200, {now()[:10]}, driver 580.95.05, torch 2.11.0+cu130"


def on_gpu(study: Study) -> Study:
    """The study as if its machine had been an H200."""
    target = Target(
        "local", "This machine: NVIDIA H200", "cuda", "local", 139 * 2**30, 4e12, (), local=True
    )
    case = replace(study.case, target=target)
    trials = tuple(
        replace(trial, plan=replace(trial.plan, case=case)) for trial in study.trials[:3]
    )
    return replace(study, id="s-gpu", case=case, trials=trials)


def write(study: Study, folder: Path, facts: dict[str, Any]) -> Path:
    """Its journals, a file an attempt, in a folder below `folder`; returns that."""
    study = study.with_trials(tuple(replace(trial, study_id=study.id) for trial in study.trials))
    place = folder / study.id
    with Journal(place / "study.jsonl") as own:
        for said in events_of(study):
            if not said.is_journalled or said.kind == "environment":
                continue
            if said.trial_id and said.kind != "trial-queued":
                with Journal(place / f"{said.trial_id}-1.jsonl") as journal:
                    journal.append(said)
            else:
                own.append(said)
    for trial in study.trials:
        for key in trial.environments:
            said = EnvironmentRecorded(key, facts, 1).event(study.id, trial.id)
            with Journal(place / f"{trial.id}-1.jsonl") as journal:
                journal.append(said)
    return place


@pytest.fixture
def results(tmp_path: Path, synthetic_study: Study) -> Path:
    """What a run on a GPU leaves, unpacked."""
    folder = tmp_path / "results"
    write(on_gpu(synthetic_study), folder, H200)
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """Pack a folder of studies as run.sh does; returns the archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(folder.glob("*/*")):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = path.stat().st_size
            file.addfile(entry, io.BytesIO(path.read_bytes()))
    return archive
