"""Owns the check of a model folder before anything is loaded: files, config, tensor table, memory.

It imports no torch and reads no weights. `check_folder` is the one entry; everything that it
accepts can be loaded, and everything else is one BadInput sentence naming file and field.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.loading import tables, tokenizer
from core.loading.header import TensorEntry, read_header
from core.loading.jsonfile import read_object

MAX_CONFIG_BYTES = 1_000_000
MAX_INDEX_BYTES = 50_000_000
SINGLE, INDEX, CONFIG, TOKENIZER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
)
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf")
# A file up to this size goes into the digest whole, of a larger one only evenly spread pieces.
WHOLE_BYTES, PIECES, PIECE_BYTES = 64_000_000, 64, 65_536


@dataclass(frozen=True)
class CheckedFolder:
    """What the pre-flight found; `tensors` are in the order of the files.

    `digest` covers config.json, every safetensors header and size, and the weights themselves: all
    of a file up to 64 MB, of a larger one 64 evenly spread pieces of 64 KB.
    """

    path: Path
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    tensors: tuple[TensorEntry, ...]
    total_bytes: int
    digest: str
    tokenizer_file: Path | None

    @property
    def family(self) -> str:
        """The model_type of config.json."""
        return str(self.config["model_type"])

    @property
    def bits(self) -> int:
        """Bits of a stored weight, of the dtype that most bytes have."""
        sizes: dict[str, int] = {}
        for entry in self.tensors:
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.nbytes
        return tables.BITS[max(sizes, key=lambda dtype: sizes[dtype])]


def check_folder(path: Path | str, need_tokenizer: bool = False) -> CheckedFolder:
    """Check a folder in Hugging Face format; raises BadInput at the first defect."""
    folder = Path(path)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder.")
    config = read_object(_file(folder, CONFIG), MAX_CONFIG_BYTES)
    tables.check_config(config)
    files = _weight_files(folder)
    tensors: list[TensorEntry] = []
    digest = hashlib.sha256(_file(folder, CONFIG).read_bytes())
    homes: dict[str, str] = {}
    for file in files:
        entries, header = read_header(file)
        for entry in entries:
            if entry.name in homes:
                raise BadInput(f"{file.name}: {entry.name} is in {homes[entry.name]} already.")
            homes[entry.name] = file.name
        tensors += entries
        _digest_file(digest, file, header)
    if not tensors:
        raise BadInput(f"{files[0].name} holds no tensors.")
    _check_index(folder, homes)
    where = files[0].name if len(files) == 1 else INDEX
    tables.check_tensors(config, {entry.name: entry.shape for entry in tensors}, where)
    total = sum(entry.nbytes for entry in tensors)
    tables.check_memory(folder.name, total)
    text = _tokenizer(folder, config, need_tokenizer)
    return CheckedFolder(folder, config, files, tuple(tensors), total, digest.hexdigest(), text)


def _tokenizer(folder: Path, config: dict[str, Any], needed: bool) -> Path | None:
    path = folder / TOKENIZER
    if path.exists() or path.is_symlink():
        tokenizer.check(_file(folder, TOKENIZER), config)
        return path
    if needed:
        raise BadInput(
            f"{folder.name}: {TOKENIZER} is missing, which text needs; save the fast tokenizer "
            "beside the weights."
        )
    return None


def _root(folder: Path) -> Path:
    """Where links may lead: the folder, or its whole repository in a hub cache (snapshots/<id>)."""
    if folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir():
        return folder.parent.parent.resolve()
    return folder.resolve()


def _file(folder: Path, name: str) -> Path:
    """folder/name, which must be a regular file that does not lead out of the folder."""
    path = folder / name
    if not path.exists() and not path.is_symlink():
        raise BadInput(f"{folder.name}: {name} is missing.")
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise BadInput(f"{folder.name}: {name} is a link that leads nowhere.") from None
    if not target.is_relative_to(_root(folder)):
        raise BadInput(f"{folder.name}: {name} is a link that leads out of the folder.")
    if not target.is_file():
        raise BadInput(f"{folder.name}: {name} is not a regular file.")
    return path


def _weight_files(folder: Path) -> tuple[Path, ...]:
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return (_file(folder, SINGLE),)
    if (folder / INDEX).exists() or (folder / INDEX).is_symlink():
        names = sorted(set(_weight_map(folder).values()))
        return tuple(_file(folder, name) for name in names)
    names = sorted(p.name for p in folder.iterdir())
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


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_object(_file(folder, INDEX), MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{INDEX}: weight_map is missing or empty.")
    for tensor, name in weight_map.items():
        plain = isinstance(name, str) and name.endswith(".safetensors") and not name.startswith(".")
        if not plain or any(c in name for c in "/\\\0"):
            raise BadInput(
                f"{INDEX}: weight_map sends {tensor[:200]!r} to {name!r:.100}, "
                "which is not the name of a safetensors file in the folder."
            )
    return weight_map


def _check_index(folder: Path, homes: dict[str, str]) -> None:
    if (folder / SINGLE).exists():
        return
    weight_map = _weight_map(folder)
    for tensor, name in weight_map.items():
        if homes.get(tensor) != name:
            raise BadInput(f"{INDEX}: weight_map says {tensor} is in {name}, which it is not.")
    for tensor, name in homes.items():
        if tensor not in weight_map:
            raise BadInput(f"{name}: the tensor {tensor} is not listed in {INDEX}.")


def _digest_file(digest: Any, path: Path, header: bytes) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}:{size}:".encode() + header)
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
            return
        for i in range(PIECES):
            file.seek((size - PIECE_BYTES) * i // (PIECES - 1))
            digest.update(file.read(PIECE_BYTES))
