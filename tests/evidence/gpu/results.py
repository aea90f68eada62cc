"""The files that come back: at most 8 of 16 MB, complete at every moment, without this box's paths.

    environment.json  facts, versions, clocks before and after, the ceilings
    tests.xml         every test that needs a GPU
    bench.json        the kernels: times, autotuning results
    journals.tar.gz   a folder a study with a journal a trial, for `trimtab ingest`
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
TRIAL_LOG_BYTES = 20_000
STUDIES, BOX = "studies", "box.json"
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
    """What the studies' journals say and what box it was, without logs; studies that would make the
    archive too large are named in it.
    """
    folders = sorted(path for path in (place.work / STUDIES).glob("s-*") if path.is_dir())
    if not folders:
        return
    packed, left_out = b"", list[str]()
    for count in range(len(folders), 0, -1):
        packed = _packed(folders[:count], left_out, place.rehearsal)
        if len(packed) <= MOST_BYTES:
            break
        left_out.append(folders[count - 1].name)
    write(place.out, "journals.tar.gz", packed)


def _packed(folders: Sequence[Path], left_out: Sequence[str], rehearsal: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in (folders[0].parent / BOX, *(p for f in folders for p in f.glob("*.jsonl"))):
            if path.is_file() and not path.is_symlink():
                _add(archive, str(path.relative_to(folders[0].parent)), path.read_bytes())
        if rehearsal:
            _add(archive, "rehearsal.txt", b"a rehearsal: the processor stood in for a GPU\n")
        if left_out:
            text = f"left out, for {MOST_BYTES:,} bytes are taken: {', '.join(left_out)}\n"
            _add(archive, "left-out.txt", text.encode())
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file that tells nothing of who wrote it and when."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _join_logs(place: Place, parts: Sequence[str]) -> None:
    """The end of every part's log, in the order of the parts, and of every trial's."""
    texts = [_end(place.work / "logs" / f"{name}.log", LOG_BYTES) for name in parts]
    trials = sorted((place.work / STUDIES).glob("*/*.log"))
    texts += [_end(path, TRIAL_LOG_BYTES) for path in trials]
    write(place.out, "log.txt", without_paths("".join(texts)).encode()[-MOST_BYTES:])


def _end(path: Path, most: int) -> str:
    """The last bytes of a log under its name; empty where there is none."""
    if not path.is_file():
        return ""
    whole = path.read_bytes()
    cut = f"... {len(whole) - most:,} bytes before this\n" if whole[most:] else ""
    return f"== {path.stem}\n{cut}{whole[-most:].decode('utf-8', 'replace')}\n"
