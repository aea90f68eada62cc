"""A backup: one tar file with the database, the studies' journals, and a manifest of them.

The database is copied between two writes; the journals are read afterwards, so that they hold all
that it holds. The manifest is the last member: an archive that was cut off has none. Nothing in an
archive is trusted: names are matched, sizes and SHA-256 compared, and all lies in its place only
when everything was found whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from core import disk
from core.errors import StoreError
from core.ids import now
from store import migrate, open_store
from store.copies.snapshot import settle
from store.interface import Store, TrialFilter

FORMAT = 1
DATABASE, MANIFEST = "store.duckdb", "manifest.json"
LOSSES = "losses.log"
_JOURNAL = re.compile(r"studies/(?:(?P<study>[^/\\\0]+)/)?[^/\\\0]+\.jsonl")
_TABLE = re.compile(r"[a-z_]{1,60}")
_LONGEST_MANIFEST = 64 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of the archive, as the manifest names it."""

    name: str
    size: int
    sha256: str
    modified_ns: int


@dataclass(frozen=True)
class BackupManifest:
    """What an archive holds; `schema` is the store's revision, `rows` the count of each table."""

    made_at: str
    schema: str
    rows: dict[str, int]
    files: tuple[Member, ...]

    @property
    def journals(self) -> int:
        """How many of the files are journals."""
        return sum(file.name.endswith(".jsonl") for file in self.files)


def back_up(store: Store, journals: Path, target: Path) -> BackupManifest:
    """Write the archive `target`, which must not exist yet; StoreError says why it cannot be."""
    with _beside(target) as folder:
        rows = store.snapshot(folder / DATABASE)
        with open(folder / "archive", "xb") as file:
            manifest = _write(file, folder / DATABASE, journals, rows)
            file.flush()
            os.fsync(file.fileno())
    return manifest


def receive(target: Path, fetch: Callable[[Path], None]) -> BackupManifest:
    """As back_up, but `fetch` writes the archive; it is compared with its manifest."""
    with _beside(target) as folder:
        fetch(folder / "archive")
        manifest = unpack(folder / "archive", folder, only=MANIFEST)
    return manifest


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder on the disk of `target`; what is called archive in it then takes its place."""
    taken = StoreError(f"the backup {target} exists already and was left as it is: name another")
    if target.exists():
        raise taken
    try:
        with tempfile.TemporaryDirectory(prefix=".trimtab-backup-", dir=target.parent) as folder:
            yield Path(folder)
            # Unlike a rename, a link never takes the place of a file that came meanwhile.
            os.link(Path(folder) / "archive", target)
            disk.sync_folder(target.parent)
    except FileExistsError:
        raise taken from None
    except OSError as error:
        raise StoreError(
            f"the backup {target} cannot be written: {error.strerror or error}"
        ) from None


def _write(file: IO[bytes], copy: Path, journals: Path, rows: dict[str, int]) -> BackupManifest:
    members = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        with open(copy, "rb") as database:
            digest = hashlib.file_digest(database, "sha256").hexdigest()
            database.seek(0)
            facts = os.stat(copy)
            members.append(Member(DATABASE, facts.st_size, digest, facts.st_mtime_ns))
            _add(archive, DATABASE, facts.st_size, database)
        for path in _journals(journals):
            # A journal may grow while it is read: what was read is what is kept.
            modified, data = path.stat().st_mtime_ns, path.read_bytes()
            name = "studies/" + path.relative_to(journals).as_posix()
            members.append(Member(name, len(data), hashlib.sha256(data).hexdigest(), modified))
            _add(archive, name, len(data), io.BytesIO(data))
        manifest = BackupManifest(now(), migrate.HEAD, rows, tuple(members))
        text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode()
        _add(archive, MANIFEST, len(text), io.BytesIO(text))
    return manifest


def _journals(folder: Path) -> Iterator[Path]:
    for pattern in (LOSSES, "*.jsonl", "*/*.jsonl"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                yield path


def _add(archive: tarfile.TarFile, name: str, size: int, data: IO[bytes]) -> None:
    facts = tarfile.TarInfo(name)
    facts.size, facts.mode = size, 0o600
    archive.addfile(facts, data)


def restore_to(source: Path, place: Path, journals: Path) -> BackupManifest:
    """Put what the archive holds at `place` and in `journals`, which must be empty; StoreError says
    what is wrong with the archive or in the way, and then nothing is put anywhere.
    """
    _refuse_full(place, journals)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".trimtab-restore-", dir=place.parent) as folder:
            inside = Path(folder)
            manifest = unpack(source, inside)
            _check_rows(source, inside / DATABASE, manifest)
            if journals.exists():
                journals.rmdir()
            if (inside / "studies").exists():
                os.rename(inside / "studies", journals)
            for path in (place, place.with_name(place.name + ".wal")):
                path.unlink(missing_ok=True)
            os.link(inside / DATABASE, place)
            disk.sync_folder(place.parent)
    except OSError as error:
        raise StoreError(
            f"the backup {source} cannot be restored to {place}: {error.strerror or error}"
        ) from None
    return manifest


def unpack(source: Path, folder: Path, only: str = "") -> BackupManifest:
    """Extract the archive (or only the member of this name) into `folder`, and compare everything
    with the manifest; StoreError names what is wrong.
    """
    try:
        with open(source, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            contents = _extract(source, archive, folder, only)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _bad(source, f"it is no backup of a store, or is damaged ({error})") from None
    except OSError as error:
        raise StoreError(f"the backup {source} cannot be read: {error.strerror or error}") from None
    if MANIFEST not in contents:
        raise _bad(source, "it has no manifest: it was cut off, or is no backup of a store")
    manifest = _manifest(source, folder / MANIFEST)
    (folder / MANIFEST).unlink()
    named = {member.name: (member.size, member.sha256) for member in manifest.files}
    del contents[MANIFEST]
    for name in named.keys() | contents.keys():
        if name not in contents:
            raise _bad(source, f"{name} is missing")
        if name not in named:
            raise _bad(source, f"{name} is not in its manifest")
        if contents[name] != named[name]:
            raise _bad(source, f"{name} was changed: it is not what its manifest says")
    for member in manifest.files:
        path = folder / member.name
        if path.exists():
            os.utime(path, ns=(member.modified_ns, member.modified_ns))
    return manifest


def _extract(
    source: Path, archive: tarfile.TarFile, folder: Path, only: str
) -> dict[str, tuple[int, str]]:
    contents: dict[str, tuple[int, str]] = {}
    for member in archive:
        name = member.name
        if not _allowed(name) or not member.isreg() or member.issparse():
            raise _bad(source, f"it holds {name!r}, which no backup holds")
        if name in contents:
            raise _bad(source, f"it holds {name} twice")
        if name == MANIFEST and member.size > _LONGEST_MANIFEST:
            raise _bad(source, "its manifest is too long")
        data = archive.extractfile(member)
        assert data is not None
        wanted = only in ("", name) or name == MANIFEST
        target = folder / name if wanted else Path(os.devnull)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with open(target, "xb" if wanted else "wb") as written:
            while block := data.read(_BLOCK):
                digest.update(block)
                size += written.write(block)
            if wanted:
                written.flush()
                os.fsync(written.fileno())
        contents[name] = size, digest.hexdigest()
    return contents


def _allowed(name: str) -> bool:
    if name in (DATABASE, MANIFEST, f"studies/{LOSSES}"):
        return True
    parts = _JOURNAL.fullmatch(name)
    return parts is not None and parts["study"] not in (".", "..")


def _manifest(source: Path, path: Path) -> BackupManifest:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise _bad(source, f"its format is {data['format']!r}: it needs a newer Trimtab")
        files = tuple(Member(**dataset) for dataset in data["files"])
        manifest = BackupManifest(
            str(data["made_at"]), str(data["schema"]), dict(data["rows"]), files
        )
        sound = all(
            isinstance(file.modified_ns, int) and isinstance(file.name, str) for file in files
        )
        sound = sound and all(_TABLE.fullmatch(table) for table in manifest.rows)
        if not sound or DATABASE not in [file.name for file in files]:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _bad(source, "its manifest cannot be read") from None
    if not re.fullmatch(r"\d{4}", manifest.schema):
        raise _bad(source, "its manifest cannot be read")
    if not list((migrate.SCRIPTS / "versions").glob(f"{manifest.schema}_*.py")):
        raise _bad(source, f"its schema {manifest.schema!r} is not known: it needs a newer Trimtab")
    return manifest


def _check_rows(source: Path, database: Path, manifest: BackupManifest) -> None:
    counts = settle(database, tuple(manifest.rows))
    if counts != manifest.rows:
        raise _bad(source, "its store does not hold the rows that its manifest counts")


def _refuse_full(place: Path, journals: Path) -> None:
    """StoreError unless nothing is kept at `place` and in its journals' folder."""
    if place.exists() and place.stat().st_size > 0:
        store = open_store(str(place))
        kept = store.studies(1) or store.reports() or store.count_trials(TrialFilter())
        store.close()
        if kept:
            raise StoreError(
                f"the store {place} is not empty and was left as it is: "
                "restore to another file with --store"
            )
    if journals.is_symlink() or (journals.exists() and not journals.is_dir()):
        raise StoreError(f"{journals} is in the way: it is no folder")
    if journals.is_dir() and any(journals.iterdir()):
        raise StoreError(
            f"the folder of journals {journals} is not empty and was left as it is: "
            "restore to another file with --store"
        )


def _bad(source: Path, why: str) -> StoreError:
    return StoreError(f"the backup {source} was not restored: {why}")
