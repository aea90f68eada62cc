"""Prefixes of plans that took long to make, kept for the trials of a study that share them.

A folder each, named by the prefix's key: the weights in the format "trimtab", which come back bit
for bit, and prefix.json with what making them said, took and read. Both are checked by digest when
they are loaded; what is damaged is removed and made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import format as formats
from core.artefacts.contents import contents
from core.artefacts.save import CONFIG, native_layout, write_folder
from core.caution import Caution, Note, note_body
from core.engine.load.load import load_folder
from core.errors import BadInput, Refused, TrimtabError
from core.files.formats.manifest import digested
from core.files.listing import SINGLE
from core.files.special_ids import SpecialIds
from core.journal import codec
from core.measurement import Measurement
from core.plan import Plan, settings
from core.techniques import training_text

if TYPE_CHECKING:
    from core.techniques.deployment import Deployment

FILE, VERSION = "prefix.json", 1
# A prefix may take this share of what is free on the disk.
SHARE = 1 / 8
# A GPU makes weights faster than a disk takes them: what is written, read back and hashed at this
# rate (a guess at a usual disk) in more time than it was made in is not worth keeping.
BYTES_PER_S = 3e8


@dataclass(frozen=True)
class Making:
    """How a prefix was made: by which trial, in how many seconds (loading the model included), and
    what it wrote into its log and measured on the way.
    """

    trial: str
    seconds: float
    notes: tuple[Note, ...] = ()
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Prefix:
    """The `engine` after the first `count` techniques of a plan; `learned` is what training_text
    recalls, so that what follows reads on where the making stopped.
    """

    count: int
    engine: Any
    making: Making
    learned: dict[str, Any]


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of one study in `folder`, as the trial `trial` uses them: it keeps those of
    `lengths` techniques, and loads whatever it finds.
    """

    folder: Path
    trial: str
    environment: str
    lengths: Collection[int] = ()

    def load(self, plan: Plan, device: str) -> tuple[Prefix | None, list[str]]:
        """The longest prefix of the plan that is kept, or None; and a sentence for each that was
        damaged and removed.
        """
        damaged: list[str] = []
        for count in range(len(plan.techniques), 0, -1):
            place = self._place(plan, count)
            if not place.is_dir():
                continue
            try:
                return _read(place, count, device), damaged
            except (TrimtabError, OSError, ValueError, KeyError, TypeError) as error:
                shutil.rmtree(place, ignore_errors=True)
                damaged.append(
                    f"the kept weights of {_title(plan, count)} cannot be used ({error}): they are"
                    " made again"
                )
        return None, damaged

    def keep(
        self,
        plan: Plan,
        count: int,
        deployment: Deployment,
        source: Mapping[str, Any],
        making: Making,
    ) -> str:
        """Keep the deployment's weights as the plan's first `count` techniques left them;
        `source` is the config.json that the model came with. Why that was not possible, else an
        empty string.
        """
        place = self._place(plan, count)
        if place.exists():
            return ""
        try:
            _write(place, deployment, source, making)
        except (TrimtabError, OSError) as error:
            return (
                f"the weights of {_title(plan, count)} were not kept for the trials that share"
                f" them, each makes them itself: {error}"
            )
        return ""

    def _place(self, plan: Plan, count: int) -> Path:
        return self.folder / prefix_key(plan, count, self.environment)


def prefix_key(plan: Plan, count: int, environment: str) -> str:
    """First 16 hex digits of the SHA-256 of what determines the weights after the plan's first
    `count` techniques on this machine; the target and the workload do not.
    """
    facts = {
        "model": [plan.case.model.id, plan.case.model.revision],
        "data": sorted(dataset.identity for dataset in plan.case.data),
        "techniques": [settings(technique) for technique in plan.techniques[:count]],
        "seed": plan.seed,
        "environment": environment,
    }
    return hashlib.sha256(_canonical(facts)).hexdigest()[:16]


def _title(plan: Plan, count: int) -> str:
    return Plan(plan.case, plan.techniques[:count], plan.seed).title


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _write(place: Path, deployment: Deployment, source: Mapping[str, Any], making: Making) -> None:
    layout = native_layout(contents(deployment.engine, source))
    place.parent.mkdir(parents=True, exist_ok=True)
    total, free = layout.weights_bytes(), shutil.disk_usage(place.parent).free
    if total > SHARE * free:
        raise Refused(
            f"they take {formats.number(total, 'B')}, and only {formats.number(free, 'B')} are free"
            " on the disk of the study"
        )
    if deployment.device == "cuda" and total > BYTES_PER_S * making.seconds:
        raise Refused(
            f"writing and reading {formats.number(total, 'B')} takes longer than the"
            f" {formats.duration(making.seconds)} in which a GPU makes them"
        )
    image = deployment.case.model.task == "image"
    special = None if image else deployment.engine.special_ids
    state: dict[str, Any] = {
        "trial": making.trial,
        "seconds": making.seconds,
        "notes": [note_body(note) for note in making.notes],
        "measurements": codec.to_data(making.measurements),
        "learned": training_text.remembered(deployment),
        "special_ids": None if special is None else asdict(special),
        "digests": {},
    }

    def facts() -> Iterator[bytes]:
        # Written last, when the digests are known.
        digest = hashlib.sha256(_canonical(state)).hexdigest()
        yield _canonical({"version": VERSION, "sha256": digest, "state": state})

    named = [(name, digested(name, pieces, state["digests"])) for name, pieces in layout.files()]
    write_folder(place, [*named, (FILE, facts())], total)


def _read(place: Path, count: int, device: str) -> Prefix:
    facts = json.loads((place / FILE).read_bytes())
    state = facts["state"]
    if facts["version"] != VERSION:
        raise BadInput(f"{FILE} is of the version {facts['version']}")
    if hashlib.sha256(_canonical(state)).hexdigest() != facts["sha256"]:
        raise BadInput(f"{FILE} is not what was written")
    for name in (CONFIG, SINGLE):
        with (place / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != state["digests"][name]:
                raise BadInput(f"{name} is not what was written")
    engine, _ = load_folder(place, device=device)
    if state["special_ids"] is not None:
        ids: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in state["special_ids"].items()
        }
        engine.special_ids = SpecialIds(**ids)
    notes = tuple(
        Caution(body["caution"], body["text"]) if "caution" in body else body["text"]
        for body in state["notes"]
    )
    making = Making(state["trial"], state["seconds"], notes, codec.from_data(state["measurements"]))
    return Prefix(count, engine, making, state["learned"])
