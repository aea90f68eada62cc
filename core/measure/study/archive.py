"""The plan of a study in a file: FILE.json where nothing goes along, FILE.zip with PLAN.json and
the files that do.

Nothing in an archive is trusted: its names are those of the plan, sizes and SHA-256 are compared,
and what does not agree leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from core import format as formats
from core.errors import BadInput
from core.files.fingerprint import file_digest
from core.measure.study.plan import (
    LONGEST,
    MODEL,
    PlannedFile,
    StudyPlan,
    from_document,
    to_document,
)

PLAN = "PLAN.json"
_BLOCK = 1 << 20
_ZIP = b"PK\x03\x04"
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def write(path: Path, plan: StudyPlan, sources: Mapping[str, Path]) -> int:
    """Write the plan to `path`, in the place of what is there; returns its bytes. `sources` has the
    files that go along by their places. BadInput says what keeps it from being written.
    """
    carried = plan.carried()
    if path.suffix not in (".json", ".zip"):
        raise BadInput(f"-o {path}: the name of a plan ends in .json or .zip")
    if path.suffix == ".json" and carried:
        names = ", ".join(file.name for file in carried[:3]) + (", ..." if len(carried) > 3 else "")
        raise BadInput(
            f"-o {path}: this study needs files ({names}), which go along in a .zip: give it the"
            f" name {path.with_suffix('.zip').name}"
            + (", or leave the model out with --no-model" if _model_alone(carried) else "")
        )
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise BadInput(f"-o {path}: cannot be written ({error.strerror or error})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            if path.suffix == ".json":
                file.write(to_document(plan))
            else:
                _pack(file, plan, sources)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise BadInput(f"-o {path}: cannot be written ({error.strerror or error})") from None
    finally:
        Path(name).unlink(missing_ok=True)
    return path.stat().st_size


def _model_alone(files: Sequence[PlannedFile]) -> bool:
    return all(file.role == MODEL for file in files)


def _pack(file: IO[bytes], plan: StudyPlan, sources: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(PLAN, to_document(plan), zipfile.ZIP_DEFLATED)
        for planned in plan.carried():
            how = zipfile.ZipInfo(planned.place)
            how.external_attr = (stat.S_IFREG | 0o644) << 16
            with (
                sources[planned.place].open("rb") as source,
                archive.open(how, "w", force_zip64=True) as target,
            ):
                if _copy(source, target, planned.bytes) != planned.sha256:
                    raise BadInput(f"{sources[planned.place]} changed while it was read: try again")


def read(path: Path) -> StudyPlan:
    """The plan in a file, without what goes along; BadInput says what is wrong with it."""
    with _opened(path) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            if file.read(len(_ZIP)) == _ZIP:
                raise BadInput(f"{path} is a damaged .zip, its end is missing: copy it again")
            file.seek(0)
            plan = from_document(str(path), file.read(LONGEST + 1))
            if plan.carried():
                raise BadInput(
                    f"{path} says that {plan.carried()[0].name} goes along with it, and is no .zip"
                )
            return plan
        try:
            with zipfile.ZipFile(file) as archive:
                return _checked(path, archive)
        except _DAMAGES as error:
            raise BadInput(f"{path} is a damaged .zip: {error}") from None


def unpack(path: Path, plan: StudyPlan, into: Path) -> None:
    """Put the files that go along into the folder `into`, which is there when all of them are;
    files of an earlier call are kept when they are whole. BadInput says what is wrong.
    """
    if not plan.carried() or _all_there(plan, into):
        return
    into.parent.mkdir(parents=True, exist_ok=True)
    _refuse_too_large(path, plan, into.parent)
    with tempfile.TemporaryDirectory(prefix=".files-", dir=into.parent) as temporary:
        place = Path(temporary) / "files"
        with _opened(path) as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    for planned in plan.carried():
                        _extract(path, archive, planned, place)
            except _DAMAGES as error:
                raise BadInput(f"{path} is a damaged .zip: {error}") from None
        shutil.rmtree(into, ignore_errors=True)
        os.rename(place, into)


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a file")
        return path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None


def _checked(path: Path, archive: zipfile.ZipFile) -> StudyPlan:
    """The plan of an archive that holds what its plan says and nothing else."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if PLAN not in names:
        raise BadInput(f"{path} holds no {PLAN}: it is no plan of a study")
    if len(set(names)) < len(names):
        raise BadInput(f"{path} holds a name twice")
    by_name = {entry.filename: entry for entry in entries}
    if by_name[PLAN].file_size > LONGEST:
        raise BadInput(f"{path}: {PLAN} has more than the {LONGEST >> 20} MiB of any plan")
    with archive.open(PLAN) as member:
        plan = from_document(f"{path}: {PLAN}", member.read(LONGEST + 1))
    places = {file.place: file for file in plan.carried()}
    for name, entry in by_name.items():
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name != PLAN and name not in places:
            raise BadInput(f"{path} holds {name!r:.100}, which its plan does not name")
        if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
            raise BadInput(f"{path}: {name} is a link, or can be read with a password alone")
        if name in places and entry.file_size != places[name].bytes:
            raise BadInput(f"{path}: {name} does not have the size that the plan says")
    missing = next((place for place in places if place not in by_name), None)
    if missing is not None:
        raise BadInput(f"{path} lacks {missing}, which its plan names")
    return plan


def _all_there(plan: StudyPlan, into: Path) -> bool:
    try:
        return all(file_digest(into / file.place) == file.sha256 for file in plan.carried())
    except BadInput:
        return False


def _refuse_too_large(path: Path, plan: StudyPlan, folder: Path) -> None:
    total, free = sum(file.bytes for file in plan.carried()), shutil.disk_usage(folder).free
    if total > free:
        raise BadInput(
            f"{path} holds {formats.number(total, 'B')}, the disk of {folder} has"
            f" {formats.number(free, 'B')} left"
        )


def _extract(path: Path, archive: zipfile.ZipFile, planned: PlannedFile, into: Path) -> None:
    target = into / planned.place
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(planned.place) as source, target.open("xb") as file:
        if _copy(source, file, planned.bytes) != planned.sha256:
            raise BadInput(f"{path}: {planned.place} was changed: its SHA-256 is not the plan's")


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copy at most one byte more than `size`; the SHA-256 of what was read."""
    digest, left = hashlib.sha256(), size + 1
    while left and (block := source.read(min(_BLOCK, left))):
        digest.update(block)
        target.write(block)
        left -= len(block)
    return digest.hexdigest()
