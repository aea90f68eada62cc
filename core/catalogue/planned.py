"""Owns the promise that a planned model is the one that is measured: its files are fingerprinted
when a study's first trial starts, and compared before and after every load.

A file of more than 64 MB is in a plan's revision by 64 pieces alone; between planning and the first
trial only a change of these is seen, from then on a change of any byte.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

from core import disk
from core.catalogue.models import find_folder
from core.errors import TrimtabError
from core.files.fingerprint import Fingerprint, from_json, refusal
from core.files.folder import CheckedFolder, check_folder
from core.model import Model

FILE = "files.json"


def checked(model: Model, planned: Fingerprint | None = None) -> CheckedFolder:
    """The checked folder of a planned model, hashed once in this process.

    Refused when it no longer has the plan's revision, or not the files of `planned`; BadInput when
    it is damaged.
    """
    there = planned is not None and Path(planned.path).exists()
    folder = Path(planned.path) if planned is not None and there else find_folder(model.id)
    content = check_folder(folder)
    now = content.fingerprint()
    changed = [] if planned is None else planned.changed(now)
    if changed or content.digest != model.revision:
        raise refusal(folder, changed)
    return replace(content, planned=now)


def planned_files(model: Model, study: Path) -> Fingerprint | None:
    """The fingerprint that the folder of a study keeps of its model, taken now where there is none.

    None for random weights, and for files that are not the plan's or cannot be read: the trial will
    say so.
    """
    with contextlib.suppress(OSError, ValueError):
        return from_json(json.loads((study / FILE).read_text(encoding="utf-8")))
    with contextlib.suppress(OSError, TrimtabError):
        if model.source != "shape":
            now = checked(model).fingerprint()
            disk.replace(study / FILE, json.dumps(now.to_json(), indent=1).encode())
            return now
    return None
