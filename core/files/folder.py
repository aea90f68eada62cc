"""Owns the check of a model folder before anything is loaded: files, config, tensor table, memory.

It imports no torch and reads no weights. `check_folder` is the one entry; everything that it
accepts can be loaded, and everything else is one BadInput sentence naming file and field.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import listing as files
from core.files import quantized, special_ids, tables, tokenizer
from core.files.config import precision
from core.files.config.classifier import CLASSIFIERS
from core.files.fingerprint import Fingerprint, fingerprint, refusal
from core.files.gguf import folder as gguf_files
from core.files.header import TensorEntry, read_header
from core.files.jsonfile import read_object
from kernels.dtypes import BY_FILE, FILE_FLOATS

MAX_CONFIG_BYTES, MAX_CONFIG_VALUES = 1_000_000, 100_000
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# A file up to this size goes into the digest whole, of a larger one only evenly spread pieces.
WHOLE_BYTES, PIECES, PIECE_BYTES = 64_000_000, 64, 65_536


@dataclass(frozen=True)
class CheckedFolder:
    """What the pre-flight found; `tensors` are in the order of the files.

    `digest` covers config.json, every safetensors header and size, and the weights themselves: all
    of a file up to 64 MB, of a larger one 64 evenly spread pieces of 64 KB. `planned` is what the
    files must still be whenever they are loaded; None asks for nothing.
    """

    path: Path
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    tensors: tuple[TensorEntry, ...]
    total_bytes: int
    digest: str
    tokenizer_file: Path | None
    planned: Fingerprint | None = None

    @property
    def family(self) -> str:
        """The model_type of config.json."""
        return str(self.config["model_type"])

    @property
    def quantized(self) -> bool:
        """Whether the matrices are stored as codes, or in a format that may hold them so."""
        return gguf_files.is_gguf(self.config) or quantized.method(self.config) is not None

    @functools.cached_property
    def dtype(self) -> str:
        """The float format that the model is computed in: fp32, bf16 or fp16; of a classifier fp32,
        which holds all of them.
        """
        if self.family in CLASSIFIERS:
            return quantized.saved_dtype(self.config) or "fp32"
        return precision.stored_dtype(self.config, self.tensors, self.weight_files)

    @property
    def rounded(self) -> str:
        """What `dtype` rounds of the file's numbers, as a sentence; empty for nothing."""
        return precision.rounded(self.config, self.tensors, self.dtype)

    @property
    def bits(self) -> int:
        """Bits of a stored weight, of the dtype that most bytes have; of quantized ones the mean,
        with all that belongs to them.
        """
        if gguf_files.is_gguf(self.config):
            return gguf_files.bits(self.tensors)
        if self.quantized:
            return quantized.bits(self.config, self.tensors)
        sizes: dict[str, int] = {}
        for entry in self.tensors:
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.nbytes
        return 8 * BY_FILE[max(FILE_FLOATS, key=lambda dtype: sizes.get(dtype, 0))].bytes

    def fingerprint(self) -> Fingerprint:
        """Of every file that is loaded, as it is now."""
        names = () if gguf_files.is_gguf(self.config) else (CONFIG, files.INDEX)
        beside = [self.path / name for name in names]
        if self.tokenizer_file is not None:
            beside.append(self.tokenizer_file)
        return fingerprint(self.path, (*self.weight_files, *beside))

    def verify(self) -> None:
        """Refused when a file is no longer what was planned."""
        changed = [] if self.planned is None else self.planned.changed(self.fingerprint())
        if changed:
            raise refusal(self.path, changed)

    def stored_bytes(self) -> tuple[tuple[str, int], ...]:
        """(dtype, bytes) of the weights in the files, the most bytes first; tables that follow from
        the config and the copy of a tied head are left out.
        """
        sizes: dict[str, int] = {}
        for entry in self.tensors:
            if not tables.spare(self.config, entry.name):
                sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.nbytes
        return tuple(sorted(sizes.items(), key=lambda size: -size[1]))


def check_folder(path: Path | str, need_tokenizer: bool = False) -> CheckedFolder:
    """Check a folder in Hugging Face format, or a GGUF file; BadInput at the first defect."""
    single = gguf_files.find(path)
    if single is not None:
        return _gguf(single, need_tokenizer)
    folder = files.the_folder(path)
    config_file = files.regular(folder, CONFIG)
    config = read_object(config_file, MAX_CONFIG_BYTES, max_values=MAX_CONFIG_VALUES)
    tables.check_config(config)
    packed = quantized.method(config) is not None
    weights = files.weight_files(folder)
    tensors: list[TensorEntry] = []
    digest = hashlib.sha256()
    homes: dict[str, str] = {}
    try:
        digest.update(config_file.read_bytes())
        for file in weights:
            entries, header = read_header(file)
            if not packed:
                tables.check_dtypes(config, entries, file.name)
            for entry in entries:
                if entry.name in homes:
                    raise BadInput(
                        f"{file.name}: the tensor {entry.name[:200]} is in {homes[entry.name]} too."
                    )
                homes[entry.name] = file.name
            tensors += entries
            _digest_file(digest, file, header)
    except OSError as error:
        raise BadInput(f"{folder.name}: the files cannot be read: {error.strerror}.") from None
    if not tensors:
        raise BadInput(f"{weights[0].name} holds no tensors.")
    files.check_index(folder, homes)
    where = weights[0].name if len(weights) == 1 else files.INDEX
    if packed:
        quantized.check(config, tensors, where)
    else:
        tables.check_tensors(config, {entry.name: entry.shape for entry in tensors}, where)
    total = sum(entry.nbytes for entry in tensors)
    tables.check_memory(folder.name, total)
    special_ids.read(folder, config)
    text = _tokenizer(folder, config, need_tokenizer)
    return CheckedFolder(folder, config, weights, tuple(tensors), total, digest.hexdigest(), text)


def _gguf(file: Path, need_tokenizer: bool) -> CheckedFolder:
    config, tensors, header = gguf_files.check(file)
    digest = hashlib.sha256()
    _digest_file(digest, file, header)
    total = sum(entry.nbytes for entry in tensors)
    tables.check_memory(file.name, total)
    # Beside a file of another name lies whatever its folder is for.
    ours = file.name == gguf_files.NAME or need_tokenizer
    text = _tokenizer(file.parent, config, False) if ours else None
    return CheckedFolder(file, config, (file,), tensors, total, digest.hexdigest(), text)


def _tokenizer(folder: Path, config: dict[str, Any], needed: bool) -> Path | None:
    if files.present(folder, TOKENIZER):
        path = files.regular(folder, TOKENIZER)
        tokenizer.check(path, config)
        return path
    if needed:
        raise BadInput(
            f"{folder.name}: {TOKENIZER} is missing, which text needs; save the fast tokenizer "
            "beside the weights."
        )
    return None


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
