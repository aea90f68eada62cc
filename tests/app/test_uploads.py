"""Uploaded data: kept by content, named safely, copied into the study that takes it along."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app import uploads
from core.data.files import load_dataset, read_dataset
from core.errors import BadInput
from core.plan import Plan
from core.study import Study


def test_an_upload_is_found_again_by_its_content(tmp_path: Path) -> None:
    token = uploads.receive(tmp_path, "My text.txt", b"words")
    path = uploads.find(tmp_path, token)
    assert path is not None
    assert path.name == "My-text.txt"
    assert path.read_bytes() == b"words"
    assert uploads.receive(tmp_path, "again.txt", b"words") == token
    found = uploads.find(tmp_path, token)
    assert found is not None
    assert found.name == "again.txt"


@pytest.mark.parametrize("token", ["", "../../etc", "0" * 15, "g" * 16, "0" * 16, "0" * 15 + "\n"])
def test_other_words_find_nothing(tmp_path: Path, token: str) -> None:
    uploads.receive(tmp_path, "a.txt", b"words")
    assert uploads.find(tmp_path, token) is None


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\data\\my quiz.JSONL", "my-quiz.JSONL"),
        ("<script>.npz", "script.npz"),
        (".txt", "txt"),
        ("..", "data"),
        ("漢字.txt", "data.txt"),
        ("x" * 300 + ".txt", "x" * 60 + ".txt"),
    ],
)
def test_a_name_becomes_a_plain_file_name(name: str, safe: str) -> None:
    assert uploads.safe_name(name) == safe


def test_a_study_takes_its_uploads_along_and_leaves_other_files_where_they_are(
    tmp_path: Path, synthetic_study: Study
) -> None:
    folder = tmp_path / "store"
    own = tmp_path / "own.txt"
    own.write_bytes(b"my own words")
    path = uploads.find(folder, uploads.receive(folder, "quiz.txt", b"uploaded words"))
    data = (read_dataset(str(path)), read_dataset(str(own)))
    case = replace(synthetic_study.case, data=data)
    study, plans = uploads.take_along(
        folder, replace(synthetic_study, case=case), (Plan(case), Plan(case, seed=1))
    )
    assert study.case.data[0].path == str((folder / "s-synthetic/data/quiz.txt").resolve())
    assert study.case.data[1] == data[1]
    assert [plan.case for plan in plans] == [study.case] * 2
    assert [plan.key for plan in plans] == [Plan(case).key, Plan(case, seed=1).key]
    assert load_dataset(study.case.data[0]).texts == ("uploaded words",)


def test_uploads_that_nobody_took_are_forgotten_after_a_week(tmp_path: Path) -> None:
    old = uploads.receive(tmp_path, "old.txt", b"old")
    before = time.time() - uploads.KEPT_S - 60
    os.utime(tmp_path / uploads.FOLDER / old, (before, before))
    new = uploads.receive(tmp_path, "new.txt", b"new")
    assert uploads.find(tmp_path, old) is None
    assert uploads.find(tmp_path, new) is not None


def test_an_upload_that_cannot_be_kept_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / uploads.FOLDER).write_bytes(b"a file in the way")
    with pytest.raises(BadInput, match=r"a\.txt cannot be kept"):
        uploads.receive(tmp_path, "a.txt", b"words")
