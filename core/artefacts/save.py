"""Owns writing an artefact's folder: beside its place, checked by the pre-flight, then renamed.

What is in the files is said by the modules of the formats.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import disk
from core.artefacts.contents import Contents, dense_parts
from core.errors import BadInput, Refused
from core.files import listing as files
from core.files.folder import check_folder
from core.files.formats import native
from core.files.formats.parts import Part, blocks, file_bytes, write_file
from kernels.dtypes import FLOATS

CONFIG = "config.json"


@dataclass(frozen=True)
class FolderLayout:
    """The files of an artefact before they are written: config.json's content, the tensors, and
    sentences about what this format does not hold exactly.
    """

    config: dict[str, Any]
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    def config_bytes(self) -> bytes:
        """The content of config.json."""
        return (json.dumps(self.config, indent=2, ensure_ascii=False) + "\n").encode()

    def weights_bytes(self) -> int:
        """Bytes of model.safetensors."""
        return file_bytes(self.parts)

    def files(self) -> list[tuple[str, Iterable[memoryview | bytes]]]:
        """Name and content of each file."""
        return [(CONFIG, [self.config_bytes()]), (files.SINGLE, blocks(self.parts))]


def native_layout(contents: Contents) -> FolderLayout:
    """The format "trimtab"; a folder of plain weights where nothing is quantized."""
    from core.artefacts.native_weights import store

    parts, records = list(contents.plain), {}
    for stack, weight in contents.weights:
        if weight.format in FLOATS:
            parts += dense_parts(stack, weight)
        else:
            records[stack.name], more = store(stack.name, weight)
            parts += more
    config = dict(contents.config)
    if records:
        config["quantization_config"] = {
            "quant_method": native.METHOD, "version": native.VERSION, "matrices": records,
        }  # fmt: skip
    return FolderLayout(config, tuple(parts))


def check_place(folder: Path) -> None:
    """BadInput unless a new folder can come to `folder`: nothing is there, or an empty folder.

    Makes the folder beside it that is written into, and what is above, and removes them again.
    """
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise BadInput(f"-o {folder}: there is a file or a link; name a new folder.")
        if folder.is_dir() and any(folder.iterdir()):
            raise BadInput(f"-o {folder}: the folder is not empty; name a new one.")
        above = folder.absolute().parent
        while not above.exists():
            above = above.parent
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise BadInput(f"-o {folder}: {above} is no folder that you may write into.")
        _try_stage(folder.absolute())
    except OSError as error:
        raise BadInput(
            f"-o {folder}: no folder can be made there ({error.strerror or error}); name another."
        ) from None


def _try_stage(folder: Path) -> None:
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        _stage(folder).rmdir()
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _stage(folder: Path) -> Path:
    """A new folder beside `folder`, to be renamed to it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))


def write_folder(
    folder: Path, named: Sequence[tuple[str, Iterable[memoryview | bytes]]], total: int
) -> dict[str, int]:
    """Write files into a new folder that appears whole or not at all; their sizes by name, which
    may have one folder before it (`additional_chat_templates/tools.jinja`).

    `total` is about what they take. Raises BadInput or Refused with a sentence.
    """
    check_place(folder)
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if total > free:
            raise Refused(
                f"-o {folder}: the artefact takes {total:,} bytes, {free:,} are free on that disk."
            )
        stage = _stage(folder)
    except OSError as error:
        raise BadInput(f"-o {folder}: {error.strerror or error}.") from None
    try:
        stage.chmod(0o755)
        sizes = {}
        for name, pieces in named:
            (stage / name).parent.mkdir(exist_ok=True)
            sizes[name] = write_file(stage / name, pieces)
        for inside in {(stage / name).parent for name in sizes} | {stage}:
            disk.sync_folder(inside)
        if (stage / CONFIG).exists():
            _verify(stage)
        disk.rename(stage, folder)
        return sizes
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise Refused(f"-o {folder}: {reason}; nothing was left there.") from None
    finally:
        with contextlib.suppress(OSError):
            if stage.exists():
                shutil.rmtree(stage)


def _verify(stage: Path) -> None:
    try:
        check_folder(stage)
    except BadInput as error:
        raise Refused(f"what was written would not load again: {error}") from None
