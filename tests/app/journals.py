"""Journals as a box without the dashboard writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.journal.events import (
    EnvironmentRecorded,
    StudyStateChanged,
    study_created,
    trial_queued,
)
from core.journal.journal import Journal
from core.study import Study
from tests.app.conftest import events_of

FACTS = {
    "cpu": "Intel(R) Xeon(R) Platinum 8480C",
    "cores": 16,
    "gpus": [{"name": "NVIDIA H200", "memory_bytes": 150_000_000_000}],
    "driver": "580.95",
    "versions": {"torch": "2.11.0+cu130"},
}
BOX = "NVIDIA H200, driver 580.95, torch 2.11.0+cu130"


def write(study: Study, folder: Path, parts: tuple[str, ...] = ("begin", "trials", "end")) -> Path:
    """The journals of `study` as a box without the dashboard writes them; returns its folder."""
    place = folder / study.id
    own = Journal(place / "study.jsonl")
    if "begin" in parts:
        own.append(study_created(study))
        plain = {"state": "queued", "attempt": 0, "measurements": (), "kernels": (), "notes": ()}
        own.extend(trial_queued(replace(trial, **plain)) for trial in study.trials)
        own.append(StudyStateChanged("running").event(study.id))
    if "trials" in parts:
        for said in events_of(study):
            if said.trial_id and said.kind != "trial-queued" and said.is_journalled:
                trial = study.trial(said.trial_id)
                assert trial is not None
                if trial.state == "refused":
                    own.append(said)
                    continue
                with Journal(place / f"{said.trial_id}-1.jsonl") as journal:
                    journal.append(said)
        first = study.trials[0].id
        with Journal(place / f"{first}-1.jsonl") as journal:
            journal.append(EnvironmentRecorded("env-7f3a", FACTS, 1).event(study.id, first))
        (place / f"{first}-1.log").write_text("a library's words\n")
    if "end" in parts:
        own.append(StudyStateChanged("done").event(study.id))
    return place
