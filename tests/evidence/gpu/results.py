"""The files that come back: at most 8 of 16 MB, complete at every moment, without this box's paths.

    environment.json  facts, versions, clocks before and after, the ceilings
    tests.xml         every test that needs a GPU
    bench.json        the kernels: times, autotuning results
    journals.tar.gz   a folder a study: its plan, a journal a trial
    steps.json        energy on a steady load; a decode step captured and eager
    summary.json      parts, seconds, outcomes, figures
    log.txt           the end of what every part printed

A file is written under another name and then renamed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.evidence.gpu.place import ROOT, Place

MOST_BYTES = 16_000_000
LOG_BYTES = 1_500_000
STUDIES = "studies"
# What a part that is killed leaves in the scratch folder, and what it is called among the results.
TAKEN = ("tests.xml", "bench.json")


def write(folder: Path, name: str, content: bytes) -> None:
    """Put a file in its place at once; ValueError for one that would not be taken along."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"{name} would have {len(content):,} bytes, {MOST_BYTES:,} are taken")
    draft = folder / f"{name}.part"
    draft.write_bytes(content)
    os.replace(draft, folder / name)


def write_json(place: Place, name: str, data: dict[str, Any]) -> None:
    """Write `data`, marked as a rehearsal where it is one."""
    marked = {"rehearsal": place.rehearsal, **data}
    text = without_paths(json.dumps(marked, indent=1, ensure_ascii=False, default=str))
    write(place.out, name, (text + "\n").encode())


def add_json(place: Place, name: str, key: str, data: Any) -> None:
    """Write the file again with `key` set to `data`."""
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads((place.out / name).read_text(encoding="utf-8"))
    write_json(place, name, {**before, key: data, "rehearsal": place.rehearsal})


def without_paths(text: str) -> str:
    """Texts of a box with its own places taken out."""
    for path, name in ((ROOT, "."), (sys.prefix, "PYTHON"), (sys.base_prefix, "PYTHON")):
        if len(str(path)) > len("/usr"):
            text = text.replace(str(path), name)
    return text


def refresh(place: Place, parts: Sequence[str]) -> None:
    """Take what the parts have so far: their files, journals and logs. What cannot be taken is said
    on standard error, and taken the next time.
    """
    for take in (_take_files, _pack_journals, lambda where: _join_logs(where, parts)):
        try:
            take(place)
        except (OSError, ValueError, tarfile.TarError) as error:
            print(f"the results are not complete yet: {error}", file=sys.stderr)


def _take_files(place: Place) -> None:
    for name in TAKEN:
        with contextlib.suppress(FileNotFoundError):
            write(place.out, name, without_paths((place.work / name).read_text("utf-8")).encode())


def _pack_journals(place: Place) -> None:
    """All studies in one archive; those that would make it too large are named in it."""
    folders = sorted(path for path in (place.work / STUDIES).glob("*") if path.is_dir())
    if not folders:
        return
    packed, left_out = b"", []
    for count in range(len(folders), 0, -1):
        packed = _packed(folders[:count], left_out)
        if len(packed) <= MOST_BYTES:
            break
        left_out.append(folders[count - 1].name)
    write(place.out, "journals.tar.gz", packed)


def _packed(folders: Sequence[Path], left_out: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for folder in folders:
            archive.add(folder, arcname=folder.name, filter=_anonymous)
        if left_out:
            text = f"left out, for {MOST_BYTES:,} bytes are taken: {', '.join(left_out)}\n".encode()
            entry = tarfile.TarInfo("left-out.txt")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files and folders alone, whose owner nobody needs to know."""
    if not (entry.isfile() or entry.isdir()):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _join_logs(place: Place, parts: Sequence[str]) -> None:
    """The end of every part's log, in the order of the parts."""
    texts = []
    for name in parts:
        path = place.work / "logs" / f"{name}.log"
        if path.is_file():
            whole = path.read_bytes()
            cut = f"... {len(whole) - LOG_BYTES:,} bytes before this\n" if whole[LOG_BYTES:] else ""
            end = whole[-LOG_BYTES:].decode("utf-8", "replace")
            texts.append(f"== {name}\n{cut}{end}\n")
    write(place.out, "log.txt", without_paths("".join(texts)).encode()[-MOST_BYTES:])
