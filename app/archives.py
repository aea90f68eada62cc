"""Journals of studies packed into one file, as a run on another machine leaves them: unpacked by
name and within limits, whatever the archive holds beside them.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO

from app.jobs.elsewhere import FILES, STUDY, STUDY_ID
from core.errors import BadInput

# What a run on a GPU packs its journals into (tests/evidence/gpu).
PACKED = "journals.tar.gz"
MOST_FILES = 5_000
MOST_BYTES = 1 << 30
_MEMBER = re.compile(rf"(?:[^/]+/)*({STUDY_ID.pattern})/({FILES.pattern})")
_ENCRYPTED = 0x1
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # NotImplementedError among them: a way of packing that is not known here
    ValueError,
)


@contextmanager
def unpacked(place: Path) -> Iterator[Path]:
    """The folder of journals that `place` is or holds: a folder itself, one with PACKED in it, or a
    .tar.gz or .zip, which is unpacked for as long as this lasts.

    BadInput for an archive that cannot be read, holds no journals or more than a study's worth.
    """
    archive = place / PACKED if place.is_dir() and not any(place.glob(f"*/{STUDY}")) else place
    if not archive.is_file():
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="trimtab-journals-") as folder:
        unpack(archive, Path(folder))
        yield Path(folder)


def unpack(archive: Path | IO[bytes], folder: Path, name: str = "") -> None:
    """Put the journals and logs of an archive into `folder`, a folder a study; anything else in it
    is left out. BadInput as in `unpacked`, naming the file by `name` unless it has a path.
    """
    name = name or str(archive)
    seen: set[tuple[str, str]] = set()
    left = MOST_BYTES
    try:
        for member, size, content in _members(archive):
            left -= size
            if left < 0:
                raise BadInput(f"{name} holds more than {MOST_BYTES >> 20:,} MiB")
            match = _MEMBER.fullmatch(member)
            if match is None:
                continue
            study_id, file = match[1], match[2]
            if (study_id, file) in seen:
                raise BadInput(f"{name} holds {study_id}/{file} twice")
            seen.add((study_id, file))
            if len(seen) > MOST_FILES:
                raise BadInput(f"{name} holds more than {MOST_FILES:,} journals and logs")
            (folder / study_id).mkdir(exist_ok=True)
            with content() as source:
                (folder / study_id / file).write_bytes(source.read(size))
    except _BROKEN:
        raise BadInput(f"{name} is no .tar.gz or .zip of journals, or was cut off") from None
    except OSError as error:
        # gzip says so of a file that is none.
        raise BadInput(f"{name} cannot be unpacked: {error.strerror or error}") from None
    if not seen:
        raise BadInput(f"{name} holds no journals: no folder of a study with its {STUDY}")


def _members(archive: Path | IO[bytes]) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """(name, size, opener) of every plain file in an archive; links, folders and devices are
    none."""
    with archive.open("rb") if isinstance(archive, Path) else nullcontext(archive) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                for entry in packed.infolist():
                    if not entry.is_dir() and not entry.flag_bits & _ENCRYPTED:
                        yield entry.filename, entry.file_size, partial(packed.open, entry)
            return
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as packed:
            for member in packed:
                if member.isreg():
                    yield member.name, member.size, partial(_opened, packed, member)


def _opened(packed: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = packed.extractfile(member)
    assert content is not None  # a plain file, as isreg() said
    return content
