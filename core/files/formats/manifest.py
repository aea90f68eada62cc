"""Owns trimtab.json: where an artefact comes from, how it was made and what it takes.

Nothing that loading needs is in it: without it the folder loads as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import listing as files
from core.files.fingerprint import file_digest
from core.files.jsonfile import read_object

NAME, VERSION = "trimtab.json", 1
MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class Manifest:
    """The facts of one artefact.

    `techniques` changed the weights; `runtime` are those that leave nothing to save and are chosen
    again when the model is served. `sizes` are bytes: `files` as written, `weights` of the file of
    weights, `resident` of the engine's tensors when it was written, `source` of the source's files.
    `matrices` counts the engine's matrices by format; `digests` has the SHA-256 of the files of
    weights, by name.
    """

    format: str
    source: dict[str, str]
    techniques: list[dict[str, Any]]
    runtime: list[dict[str, Any]]
    seed: int
    sizes: dict[str, int]
    matrices: dict[str, int]
    versions: dict[str, str]
    made_at: str
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """The content of trimtab.json."""
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None when it has none. BadInput when it is damaged."""
    if not files.present(folder, NAME):
        return None
    content = read_object(files.regular(folder, NAME), MAX_BYTES)
    if content.get("version") != VERSION:
        raise BadInput(f"{NAME}: version {content.get('version')!r:.40} is not {VERSION}.")
    known: dict[str, Any] = {
        "format": str, "source": dict, "techniques": list, "runtime": list, "seed": int,
        "sizes": dict, "matrices": dict, "versions": dict, "made_at": str, "notes": list,
        "version": int,
    }  # fmt: skip
    for name, kind in known.items():
        if not isinstance(content.get(name), kind):
            raise BadInput(f"{NAME}: {name} is missing or no {kind.__name__}.")
    digests = content.get("digests", {})
    if not isinstance(digests, dict) or not all(
        isinstance(digest, str) for digest in digests.values()
    ):
        raise BadInput(f"{NAME}: digests must be texts by name.")
    return Manifest(**{name: content[name] for name in known}, digests=digests)


def check_digests(weights: Iterable[Path]) -> None:
    """BadInput when a file of weights is not the one that the trimtab.json beside it names."""
    for path in weights:
        manifest = read_manifest(path.parent)
        wanted = None if manifest is None else manifest.digests.get(path.name)
        if wanted is None:
            continue
        digest = file_digest(path)
        if digest != wanted:
            raise BadInput(
                f"{path.name} is not the file that {NAME} says was written (SHA-256 {digest[:12]},"
                f" not {wanted[:12]!r}): write it again, or remove {NAME} if you changed it"
                " yourself."
            )


def digested(
    name: str, pieces: Iterable[memoryview | bytes], digests: dict[str, str]
) -> Iterator[memoryview | bytes]:
    """The pieces of a file; behind the last one its SHA-256 is in `digests`."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    digests[name] = digest.hexdigest()
