"""Owns what the pre-flight demands of a GGUF file. It needs no torch and reads no weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import listing as files
from core.files import tokenizer as tokenizer_file
from core.files.config.hf_config import from_hf
from core.files.gguf import model as gguf_model
from core.files.gguf import words as gguf_words
from core.files.gguf.parse import parse
from core.files.header import TensorEntry

NAME, SUFFIX = "model.gguf", ".gguf"
# No config.json has this: `check` alone writes it.
MARK = ".gguf"


def find(path: Path | str) -> Path | None:
    """The GGUF file that `path` is, or that a folder without a config.json holds; else None."""
    source = Path(path)
    try:
        if source.suffix == SUFFIX and source.is_file():
            return source
        if not source.is_dir() or (source / "config.json").exists():
            return None
        if not (source / NAME).is_file():
            return None
    except OSError:
        return None
    return files.regular(source, NAME)


def check(file: Path) -> tuple[dict[str, Any], tuple[TensorEntry, ...], bytes]:
    """(config, tensors, the raw header) of a file; BadInput names it and the defect."""
    gguf = parse(file)
    try:
        config = gguf_model.config_of(gguf)
    except BadInput as error:
        # The fields are named as in config.json, which this file stands for.
        raise BadInput(str(error).replace("config.json: ", f"{file.name}: ", 1)) from None
    gguf_model.check(gguf, from_hf(config))
    tensors = tuple(
        TensorEntry(name, place.type.name, place.shape, place.nbytes)
        for name, place in gguf.tensors.items()
    )
    with file.open("rb") as handle:
        header = handle.read(gguf.header_bytes)
    return config | {MARK: True}, tensors, header


def tokenizer(file: Path, config: Mapping[str, Any]) -> Any | None:
    """The tokenizer that a checked file says; None where it says none that is sound and known."""
    content = gguf_words.tokenizer_of(parse(file).metadata)
    if content is None:
        return None
    try:
        tokenizer_file.check_content(file.name, content, config)
        return tokenizer_file.made(file.name, content, config["vocab_size"])
    except BadInput:
        return None


def is_gguf(config: Mapping[str, Any]) -> bool:
    """Whether `check` made this config."""
    return config.get(MARK) is True


def bits(entries: Iterable[TensorEntry]) -> int:
    """Bits a weight takes in the file, rounded."""
    tensors = tuple(entries)
    numbers = sum(math.prod(entry.shape) for entry in tensors)
    return max(1, round(8 * sum(entry.nbytes for entry in tensors) / numbers))
