"""Data files that a browser sends: kept by their content until a study takes them along.

An upload lies in the store's folder under its digest, so that a page's URL can name it; a study
that starts gets its own copy. No st.* here; what may be in a file is core.data.parsing's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path, PurePath

from core.dataset import Dataset
from core.errors import BadInput
from core.plan import Plan
from core.study import Study

FOLDER = "uploads"
KEPT_S = 7 * 86_400.0
_DIGEST = re.compile(r"[0-9a-f]{16}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def receive(folder: Path, name: str, data: bytes) -> str:
    """Keep an upload below `folder`; returns the name under which find() gives its file again."""
    token = hashlib.sha256(data).hexdigest()[:16]
    place = folder / FOLDER / token
    try:
        _prune(folder / FOLDER)
        place.mkdir(parents=True, exist_ok=True)
        for other in place.iterdir():
            other.unlink()
        (place / safe_name(name)).write_bytes(data)
    except OSError as error:
        raise BadInput(f"{name} cannot be kept: {error.strerror or error}") from None
    return token


def find(folder: Path, token: str) -> Path | None:
    """The file of an upload, or None when there is none of this name (any more)."""
    if not _DIGEST.fullmatch(token):
        return None
    with contextlib.suppress(OSError):
        return next(iter(sorted((folder / FOLDER / token).iterdir())), None)
    return None


def safe_name(name: str) -> str:
    """A file name without folders, spaces and marks; its ending stays."""
    plain = PurePath(name.replace("\\", "/")).name
    stem, suffix = PurePath(plain).stem, PurePath(plain).suffix
    return (_UNSAFE.sub("-", stem)[:60].strip("-.") or "data") + _UNSAFE.sub("", suffix)[:10]


def take_along(
    folder: Path, study: Study, plans: tuple[Plan, ...]
) -> tuple[Study, tuple[Plan, ...]]:
    """The study and its plans with every uploaded file copied into the study's own folder; what
    lies elsewhere stays there. Keys do not change: they are made of the content.
    """
    uploads = (folder / FOLDER).resolve()
    data = tuple(
        _copied(dataset, folder / study.id / "data") if _lies_in(dataset, uploads) else dataset
        for dataset in study.case.data
    )
    case = replace(study.case, data=data)
    return replace(study, case=case), tuple(replace(plan, case=case) for plan in plans)


def _lies_in(dataset: Dataset, uploads: Path) -> bool:
    return bool(dataset.path) and Path(dataset.path).resolve().is_relative_to(uploads)


def _copied(dataset: Dataset, place: Path) -> Dataset:
    try:
        place.mkdir(parents=True, exist_ok=True)
        path = Path(shutil.copy(dataset.path, place / Path(dataset.path).name))
    except OSError as error:
        raise BadInput(
            f"{dataset.id} cannot be kept with the study: {error.strerror or error}"
        ) from None
    return replace(dataset, path=str(path.resolve()))


def _prune(uploads: Path) -> None:
    """Forget uploads that no study took for a week."""
    with contextlib.suppress(OSError):
        for place in uploads.iterdir():
            if time.time() - place.stat().st_mtime > KEPT_S:
                shutil.rmtree(place, ignore_errors=True)
