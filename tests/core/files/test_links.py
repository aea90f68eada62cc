"""Links of model caches open as transformers opens them, and lead to no file of somebody else."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.catalogue import models
from core.errors import BadInput
from core.files.folder import check_folder

MARKER = ".huggingface-shared-blobs"


def cached(folder: Path, cache: Path, shared: bool = False, below: str = "") -> Path:
    """The snapshot of a hub cache that huggingface_hub would make of `folder`: links to blobs, with
    `shared` those of large files to blobs of the whole cache; in the subfolder `below`.
    """
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / ("0123abcd" * 5) / below
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        blob = repository / "blobs" / hashlib.sha1(content).hexdigest()
        if shared and file.suffix == ".safetensors":
            name = hashlib.sha256(content).hexdigest()
            home = cache / "blobs" / name[:2] / name
            home.parent.mkdir(parents=True)
            (cache / "blobs" / MARKER).write_text("1\n")
            home.write_bytes(content)
            blob.symlink_to(os.path.relpath(home, blob.parent))
        else:
            blob.write_bytes(content)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


Place = Callable[[Path, Path], Path]


def _named(folder: Path, home: Path) -> Path:
    (home / "current").symlink_to(cached(folder, home / "hub"))
    return home / "current"


def _moved_cache(folder: Path, home: Path) -> Path:
    """~/.cache/huggingface on another disk."""
    snapshot = cached(folder, home / "disk", shared=True)
    (home / "hub").symlink_to("disk")
    return home / "hub" / snapshot.relative_to(home / "disk")


def _shards(folder: Path, home: Path) -> Path:
    (folder / "kept").mkdir()
    (folder / "model.safetensors").rename(folder / "kept" / "real")
    (folder / "model.safetensors").symlink_to("kept/real")
    return folder


def _absolute(folder: Path, home: Path) -> Path:
    snapshot = cached(folder, home / "hub")
    for link in snapshot.iterdir():
        target = link.resolve()
        link.unlink()
        link.symlink_to(target)
    return snapshot


PLACES: dict[str, Place] = {
    "hub cache": lambda folder, home: cached(folder, home / "hub"),
    "hub cache with shared blobs": lambda folder, home: cached(folder, home / "hub", shared=True),
    "subfolder of a snapshot": lambda folder, home: cached(folder, home / "hub", True, "small"),
    "link to a snapshot": _named,
    "cache that is a link": _moved_cache,
    "links inside the folder": _shards,
    "absolute links of a cache": _absolute,
}


@pytest.mark.parametrize("place", PLACES)
def test_what_transformers_opens_is_opened(place: str, folder: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    digest = check_folder(folder.path).digest
    path = PLACES[place](folder.path, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
    assert theirs.config.hidden_size == 16
    found = check_folder(path, need_tokenizer=True)
    assert (found.digest, found.family) == (digest, "llama")
    assert models.resolve(str(path)).revision == digest


def _swap(link: Path, target: Path | str) -> None:
    link.unlink()
    link.symlink_to(target)


def _secret(home: Path) -> Path:
    """A sound file that belongs to somebody else."""
    (home / "private").mkdir()
    shutil.copy(next(home.rglob("model.safetensors")), home / "private" / "weights")
    return home / "private" / "weights"


def _blobs_elsewhere(snapshot: Path, home: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(home / "private-blobs")
    blobs.symlink_to(home / "private-blobs")


def _unmarked(snapshot: Path, home: Path) -> None:
    next(home.rglob(MARKER)).unlink()


def _other_name(snapshot: Path, home: Path) -> None:
    """A file of the shared place that is no blob."""
    blob = (snapshot / "model.safetensors").resolve()
    blob.rename(blob.with_name("notes.txt"))
    _swap(snapshot / "model.safetensors", blob.with_name("notes.txt"))


def _home_beside(snapshot: Path, home: Path) -> None:
    """A folder that happens to lie in `snapshots`, and a file beside that."""
    file = snapshot.parents[1] / "diary"
    shutil.copy((snapshot / "model.safetensors").resolve(), file)
    _swap(snapshot / "model.safetensors", file)


def _loop(snapshot: Path, home: Path) -> None:
    blob = snapshot.parents[1] / "blobs" / "a"
    blob.symlink_to("../blobs/b")
    blob.with_name("b").symlink_to("a")
    _swap(snapshot / "model.safetensors", blob)


FOREIGN: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a file elsewhere": (lambda s, h: _swap(s / "model.safetensors", _secret(h)), "leads out of"),
    "a blob that is a link elsewhere": (
        lambda s, h: _swap((s / "config.json").resolve(), _secret(h)), "leads out of",
    ),
    "blobs that are a link elsewhere": (_blobs_elsewhere, "leads out of"),
    "a shared place without its mark": (_unmarked, "leads out of"),
    "a shared file that is no blob": (_other_name, "leads out of"),
    "a file beside the snapshots": (_home_beside, "leads out of"),
    "a device": (lambda s, h: _swap(s / "model.safetensors", "/dev/zero"), "leads out of"),
    "a loop": (_loop, "leads nowhere"),
    "a blob that is gone": (lambda s, h: (s / "config.json").resolve().unlink(), "leads nowhere"),
    "a folder": (lambda s, h: _swap(s / "model.safetensors", "."), "is not a regular file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_link_to_what_is_not_the_models_is_refused(
    kind: str, folder: Any, tmp_path: Path
) -> None:
    damage, says = FOREIGN[kind]
    snapshot = cached(folder.path, tmp_path / "hub", shared=True)
    check_folder(snapshot)
    damage(snapshot, tmp_path)
    with pytest.raises(BadInput, match=rf"^\w+: \S+ .*{says}"):
        check_folder(snapshot)


def test_blobs_shared_by_a_folder_that_is_no_repository_are_not_its_own(
    folder: Any, tmp_path: Path
) -> None:
    snapshot = cached(folder.path, tmp_path / "hub", shared=True)
    repository = snapshot.parents[1]
    repository.rename(repository.with_name("owner"))
    with pytest.raises(BadInput, match=r"model\.safetensors is a link that leads out of"):
        check_folder(repository.with_name("owner") / "snapshots" / snapshot.name)
