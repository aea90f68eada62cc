"""Owns which bytes a model's files had when its study began, and whether they still have them.

Every byte that is loaded counts: SHA-256 of each file, about 0.6 s a GiB. A process hashes a file
once; after that its identity is compared, which any write changes (see `_identity`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadInput, Refused
from core.files.special_ids import GENERATION, TOKENIZER_CONFIG

# Two writes within one tick of a file system's clock leave the same time of change; the coarsest
# clock ticks every two seconds. What changed later than this before it was read is hashed again.
TICK_NS = 2_000_000_000
_Identity = tuple[int, int, int, int, int]
_known: dict[_Identity, str] = {}


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 by name of the files at `path`, a model's folder or GGUF file."""

    path: str
    files: tuple[tuple[str, str], ...]

    def changed(self, now: Fingerprint) -> list[str]:
        """Names of the files that differ, came or went."""
        before, after = dict(self.files), dict(now.files)
        return sorted(name for name in before | after if before.get(name) != after.get(name))

    def to_json(self) -> dict[str, object]:
        """As `from_json` reads it."""
        return {"path": self.path, "files": dict(self.files)}


def from_json(content: object) -> Fingerprint | None:
    """The reverse of `to_json`; None for anything else."""
    if not isinstance(content, dict):
        return None
    path, files = content.get("path"), content.get("files")
    if not isinstance(path, str) or not isinstance(files, dict):
        return None
    if not all(isinstance(digest, str) for digest in files.values()):
        return None
    return Fingerprint(path, tuple(files.items()))


def fingerprint(path: Path, loaded: Iterable[Path]) -> Fingerprint:
    """Of the files that are loaded from `path`, and in a folder of what says where a text ends."""
    named = {file.name: file for file in loaded}
    if path.is_dir():
        named |= {name: path / name for name in (GENERATION, TOKENIZER_CONFIG)}
    existing = {name: file for name, file in named.items() if file.exists()}
    return Fingerprint(
        str(path), tuple((name, file_digest(file)) for name, file in sorted(existing.items()))
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex. BadInput when it cannot be read or changes while it is read."""
    try:
        before, began = _identity(path), time.time_ns()
        if before in _known:
            return _known[before]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = _identity(path)
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror or error}.") from None
    if before != after:
        raise BadInput(f"{path.name} changed while it was read: wait until it is complete.")
    if began - max(before[3:]) > TICK_NS:
        _known[before] = digest
    return digest


def _identity(path: Path) -> _Identity:
    """The file itself, its size and its times. The time of change (ctime) is the system's own: a
    program that sets the other one back moves it.
    """
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def refusal(path: Path | str, changed: list[str]) -> Refused:
    """What is said of a folder that is no longer the one that was planned."""
    what = ", ".join(changed) or "config.json or the weights"
    return Refused(
        f"{path}: {what} changed since this study was planned, so that nothing is measured under"
        " the old weights' name; plan a new study, or put the old files back"
    )
