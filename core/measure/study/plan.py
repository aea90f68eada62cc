"""The plan of a study as a document, PLAN.json: what is asked, which plans are measured, and which
files they need, with their SHA-256.

Owns the schema; how it lies in a file or an archive is archive.py's, what becomes of it on a box is
here.py's. A document is read as if a stranger had written it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import BadInput
from core.files.jsonfile import parse_object
from core.journal import codec
from core.plan import Plan
from core.planner.presets import preset
from core.study import Study

SCHEMA, VERSION = "trimtab study plan", 1
LONGEST = 64 << 20
MOST_PLANS, MOST_FILES = 500, 500
MODEL, DRAFT, DATA, TRACE = "model", "draft", "data", "trace"
_STUDY_ID = re.compile(r"s-[0-9a-z]{1,40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"(?:model|draft-\d{1,3}|data|trace)(?:/[^/\\\0]{1,200}){1,2}")


@dataclass(frozen=True)
class PlannedFile:
    """A file that a study needs: `role` is model, draft, data or trace, `name` what its user calls
    it, `bytes` its size. `place` is where it lies in the plan's archive, empty where it does not;
    `of` is the draft that it belongs to, as a technique names it.
    """

    role: str
    name: str
    sha256: str
    bytes: int
    place: str = ""
    of: str = ""


@dataclass(frozen=True)
class StudyPlan:
    """A study without trials, the plans to measure in their order, and the files they need."""

    study: Study
    plans: tuple[Plan, ...]
    files: tuple[PlannedFile, ...] = ()

    def of_role(self, role: str) -> tuple[PlannedFile, ...]:
        """The files of one role."""
        return tuple(file for file in self.files if file.role == role)

    def carried(self) -> tuple[PlannedFile, ...]:
        """The files that lie in its archive."""
        return tuple(file for file in self.files if file.place)


def to_document(plan: StudyPlan) -> bytes:
    """As `from_document` reads it."""
    data = {
        "schema": SCHEMA,
        "version": VERSION,
        "study": codec.to_data(plan.study.with_trials(())),
        "plans": [codec.to_data(each) for each in plan.plans],
        "files": [asdict(file) for file in plan.files],
    }
    return json.dumps(data, indent=1, allow_nan=False).encode()


def from_document(name: str, content: bytes) -> StudyPlan:
    """The plan in `content`, which came from the file `name`; BadInput says what is wrong."""
    if len(content) > LONGEST:
        raise BadInput(f"{name} has more than the {LONGEST >> 20} MiB of any plan of a study")
    data = parse_object(name, content)
    if data.get("schema") != SCHEMA:
        raise BadInput(
            f"{name} is no plan of a study: `trimtab bundle` writes those (its schema is"
            f" {data.get('schema')!r:.60})"
        )
    if data.get("version") != VERSION:
        raise BadInput(
            f"{name} has version {data.get('version')!r:.20} of a study's plan, this Trimtab reads"
            f" version {VERSION}"
        )
    try:
        return _plan(data)
    except BadInput as error:
        raise BadInput(f"{name} cannot be used: {error}") from None


def _plan(data: dict[str, Any]) -> StudyPlan:
    study, plans = codec.from_data(data.get("study")), _list(data, "plans", MOST_PLANS)
    if not isinstance(study, Study) or not _STUDY_ID.fullmatch(study.id):
        raise BadInput("its study is none")
    preset(study.preset)
    read = tuple(codec.from_data(each) for each in plans)
    for number, plan in enumerate(read, 1):
        if not isinstance(plan, Plan) or plan.case != study.case:
            raise BadInput(f"its plan number {number} is no plan for the study's case")
    if not read:
        raise BadInput("it has no plans")
    files = tuple(_file(each) for each in _list(data, "files", MOST_FILES))
    places = [file.place for file in files if file.place]
    if len(set(places)) < len(places):
        raise BadInput("two of its files have one place")
    return StudyPlan(study.with_trials(()), read, files)


def _list(data: dict[str, Any], name: str, most: int) -> list[Any]:
    value = data.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise BadInput(f"its {name} are no list of at most {most}")
    return value


def _file(data: Any) -> PlannedFile:
    if not isinstance(data, dict):
        raise BadInput("one of its files is no object")
    file = codec.fields_from(PlannedFile, data, "file")
    parts = file.place.split("/")
    safe = not file.place or (_PLACE.fullmatch(file.place) and not {".", ".."} & set(parts))
    if file.role not in (MODEL, DRAFT, DATA, TRACE) or not _DIGEST.fullmatch(file.sha256):
        raise BadInput(f"its file {file.name!r:.80} has no known role or no SHA-256")
    if not safe or not file.place.isprintable() or file.bytes < 0:
        raise BadInput(f"its file {file.name!r:.80} lies at {file.place!r:.80}, where none may")
    return file
