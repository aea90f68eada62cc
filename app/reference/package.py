"""The package of reference studies: its manifest, checked, and the journals beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.archives import unpacked
from app.ingest import Ingested, ingest
from core.errors import BadInput
from core.files.fingerprint import file_digest
from core.files.jsonfile import read_object
from store.interface import Store

DATA = Path(__file__).parent / "data"
MANIFEST = "manifest.json"
MOST_BYTES = 1_000_000
NONE = "no study measured on a GPU ships with this version"
WAY_OUT = (
    "to make one, run `OUT=results bash tests/evidence/gpu/run.sh` on a machine with an NVIDIA GPU"
    " and take its results in with `trimtab ingest results`"
)


@dataclass(frozen=True)
class ReferenceStudy:
    """One of the studies: what it is of, how many are decoded together, and its measured trials."""

    id: str
    model: str
    workload: str
    batch: int
    trials: int

    @property
    def title(self) -> str:
        """`shape:llama-3.1-8b, chat, 8 together`."""
        together = f", {self.batch} together" if self.batch > 1 else ""
        return f"{self.model}, {self.workload}{together}"


@dataclass(frozen=True)
class Reference:
    """What was measured on which card, when, with which versions; `file` is the archive's name in
    `folder`, `sha256` its digest, `date` the day or days, as ISO dates."""

    folder: Path
    file: str
    sha256: str
    date: str
    card: str
    driver: str
    torch: str
    studies: tuple[ReferenceStudy, ...]

    @property
    def line(self) -> str:
        """`NVIDIA H200, 2026-12-02, driver 580.95, torch 2.11.0`."""
        return f"{self.card}, {self.date}, driver {self.driver}, torch {self.torch}"

    def manifest(self) -> dict[str, Any]:
        """The content of MANIFEST."""
        return {key: value for key, value in asdict(self).items() if key != "folder"}


def reference(folder: Path = DATA) -> Reference | None:
    """What ships with this version; None when nothing does. BadInput names what is wrong with the
    manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    known = read_object(path, MOST_BYTES)
    texts = {name: _text(known, name) for name in ("file", "sha256", "date", "card", "driver")}
    torch = _text(known, "torch")
    if Path(texts["file"]).name != texts["file"]:
        raise BadInput(f"{MANIFEST}: file is {texts['file']!r}, which is no name of a file")
    listed = known.get("studies")
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{MANIFEST}: studies must be a list with at least one study")
    return Reference(folder, **texts, torch=torch, studies=tuple(map(_study, listed)))


def take_in(store: Store, studies_folder: Path, shipped: Reference) -> Ingested:
    """Take the reference studies into a store; doing so again changes nothing. BadInput when the
    archive is missing or not the one that the manifest tells of; StoreError as ingest()."""
    archive = shipped.folder / shipped.file
    if not archive.is_file():
        raise BadInput(
            f"{shipped.file}, the journals of the reference study, is missing from this"
            " installation: install Trimtab again"
        )
    if file_digest(archive) != shipped.sha256:
        raise BadInput(
            f"{shipped.file}, the journals of the reference study, was changed: its SHA-256 is not"
            " that of the manifest, and nothing was taken in. Install Trimtab again"
        )
    with unpacked(archive) as folder:
        return ingest(store, studies_folder, folder, shipped.file)


def _study(entry: Any) -> ReferenceStudy:
    if not isinstance(entry, dict):
        raise BadInput(f"{MANIFEST}: an entry of studies is no object")
    return ReferenceStudy(
        _text(entry, "id"),
        _text(entry, "model"),
        _text(entry, "workload"),
        _count(entry, "batch"),
        _count(entry, "trials"),
    )


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{MANIFEST}: {name} is missing or not a text")
    return value


def _count(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{MANIFEST}: {name} of a study must be a number above 0")
    return value
