"""Owns which files of a model folder are read: regular ones, inside the folder, in a safe format.

It opens nothing but the index of the weights; what the files hold is judged by core.files.folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import BadInput
from core.files.header import MAX_TENSORS
from core.files.jsonfile import read_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# An adapter changes the weights after they are loaded; the others are formats that can carry code
# or that nobody here reads.
ADAPTER = "adapter_config.json"
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf")
MAX_INDEX_BYTES = 32_000_000
# The layout of a hub cache: huggingface_hub's file_download.py and utils/_shared_blobs.py.
SNAPSHOTS, BLOBS, MARKER = "snapshots", "blobs", ".huggingface-shared-blobs"
_REPOSITORY = re.compile(r"models--.+")
_SHARED = re.compile(r"[0-9a-f]{64}")


def the_folder(path: Path | str) -> Path:
    """`path` as a Path; BadInput unless it is a folder that may be listed."""
    folder = Path(path)
    try:
        if folder.is_dir():
            next(folder.iterdir(), None)
            return folder
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"the folder {folder} cannot be read: {reason}.") from None
    raise BadInput(f"{folder} is not a folder.")


def present(folder: Path, name: str) -> bool:
    """Whether the folder has an entry `name`, links that lead nowhere included."""
    try:
        (folder / name).lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadInput(f"{folder.name}: {name} cannot be read: {error.strerror}.") from None
    return True


def regular(folder: Path, name: str) -> Path:
    """folder/name, which must be a regular file; a link may lead to another file of the folder, or
    to a blob of the model cache that the folder is a snapshot of, wherever transformers finds it.
    """
    path = folder / name
    if not present(folder, name):
        raise BadInput(f"{folder.name}: {name} is missing.")
    try:
        target = path.resolve(strict=True)
        inside, plain = _belongs(target, folder.resolve(strict=True)), target.is_file()
    except (OSError, RuntimeError):
        raise BadInput(f"{folder.name}: {name} is a link that leads nowhere.") from None
    if not inside:
        raise BadInput(f"{folder.name}: {name} is a link that leads out of the folder.")
    if not plain:
        raise BadInput(f"{folder.name}: {name} is not a regular file.")
    return path


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files to load: the single one, else those of the index."""
    if present(folder, ADAPTER):
        raise BadInput(
            f"{folder.name}: {ADAPTER} says that an adapter belongs to these weights; merge it into"
            " them first."
        )
    if present(folder, SINGLE):
        return (regular(folder, SINGLE),)
    if present(folder, INDEX):
        names = sorted(set(_weight_map(folder).values()))
        return tuple(regular(folder, name) for name in names)
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        if name.endswith(".safetensors"):
            raise BadInput(f"{folder.name}: {SINGLE} is missing (there is {name}; rename it).")
    for name in names:
        if name.endswith(UNSAFE):
            raise BadInput(
                f"{folder.name}: {name} is not a safe format; only safetensors is loaded, "
                f"convert it to {SINGLE}."
            )
    raise BadInput(f"{folder.name}: {SINGLE} is missing.")


def check_index(folder: Path, homes: dict[str, str]) -> None:
    """BadInput unless the index, where it counts, sends every tensor to the file that has it."""
    if present(folder, SINGLE):
        return
    weight_map = _weight_map(folder)
    for tensor, name in weight_map.items():
        if homes.get(tensor) != name:
            raise BadInput(
                f"{INDEX}: weight_map says {tensor[:200]} is in {name}, which it is not."
            )
    for tensor, name in homes.items():
        if tensor not in weight_map:
            raise BadInput(f"{name}: the tensor {tensor[:200]} is not listed in {INDEX}.")


def _belongs(target: Path, folder: Path) -> bool:
    """Whether a file is the folder's own; both are resolved. In a hub cache these are also
    `blobs/*` of the repository whose `snapshots/<id>` the folder lies in, and of the whole cache,
    where huggingface_hub 2 keeps what several repositories share.
    """
    if target.is_relative_to(folder):
        return True
    snapshot = next(
        (place for place in (folder, *folder.parents) if place.parent.name == SNAPSHOTS), None
    )
    if snapshot is None:
        return False
    repository = snapshot.parent.parent
    if target.parent == repository / BLOBS:
        return True
    shared = repository.parent / BLOBS
    return (
        bool(_REPOSITORY.fullmatch(repository.name))
        and bool(_SHARED.fullmatch(target.name))
        and target.parent == shared / target.name[:2]
        and (shared / MARKER).is_file()
    )


def _weight_map(folder: Path) -> dict[str, str]:
    content = read_object(regular(folder, INDEX), MAX_INDEX_BYTES, max_values=6 * MAX_TENSORS)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{INDEX}: weight_map is missing or empty.")
    for tensor, name in weight_map.items():
        plain = isinstance(name, str) and name.endswith(".safetensors") and not name.startswith(".")
        if not plain or not name.isprintable() or len(name) > 200 or "/" in name or "\\" in name:
            raise BadInput(
                f"{INDEX}: weight_map sends {tensor[:200]!r} to {name!r:.100}, "
                "which is not the name of a safetensors file in the folder."
            )
    return weight_map
