"""Makes the package of reference studies from what a run on a GPU left: journals whose chain is
whole, of trials that a real card ran. What cannot be vouched for is refused with a sentence.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from app.archives import unpacked
from app.facts import facts_of
from app.ingest import ingest
from app.reference.package import MANIFEST, Reference, ReferenceStudy
from core import disk
from core.errors import BadInput
from core.files.fingerprint import file_digest
from core.files.jsonfile import read_object
from core.machine.naming import machine_name
from core.machine.stays import Stay, stays
from core.study import Study
from store import open_store
from store.interface import Store

ARCHIVE = "journals.tar.gz"
# What git and a wheel carry without anyone minding.
MOST_BYTES = 16_000_000
_RESULT_BYTES = 64_000_000


def make(results: Path, into: Path) -> Reference:
    """Write the archive and the manifest into the folder `into`, in the place of those that are
    there. `results` holds the journals: a folder of studies, one with their archive, or the
    archive.

    BadInput when anything of them was damaged, was a rehearsal, did not run on a GPU, or comes from
    more than one machine.
    """
    _refuse_rehearsal(results)
    with unpacked(results) as journals, tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        store = open_store("memory:")
        taken = ingest(store, Path(scratch), journals)
        if taken.notices:
            raise BadInput(f"{results} is not whole: {' '.join(taken.notices)}")
        studies = [study for key in taken.study_ids if (study := store.study(key)) is not None]
        kept = [study for study in studies if study.done()]
        if not kept:
            raise BadInput(f"{results} holds no finished trial: there is nothing to ship")
        stay = _one_card(store, kept)
        # As they came: what this store says of a study stays here.
        packed = _packed(journals, kept)
    if len(packed) > MOST_BYTES:
        raise BadInput(
            f"the journals of {len(kept)} studies have {len(packed):,} bytes, {MOST_BYTES:,} are"
            " shipped at most: leave a study's folder out"
        )
    into.mkdir(parents=True, exist_ok=True)
    disk.replace(into / ARCHIVE, packed)
    versions = dict(stay.software)
    shipped = Reference(
        into,
        ARCHIVE,
        file_digest(into / ARCHIVE),
        stay.first,
        stay.machine.name,
        versions["driver"],
        versions["torch"],
        tuple(map(_listed, kept)),
    )
    disk.replace(into / MANIFEST, (dumps(shipped.manifest(), indent=2) + "\n").encode())
    return shipped


def _refuse_rehearsal(results: Path) -> None:
    folder = results if results.is_dir() else results.parent
    for path in sorted(folder.glob("*.json")):
        if read_object(path, _RESULT_BYTES).get("rehearsal") is True:
            raise BadInput(f"{path} says that this was a rehearsal, without a GPU")


def _one_card(store: Store, studies: Sequence[Study]) -> Stay:
    """The one GPU that all finished trials ran on, with its driver and torch."""
    trials = [trial for study in studies for trial in study.done()]
    known = facts_of(store, trials)
    hosts = stays(trials, known)
    nameless = len(trials) - sum(len(stay.trials) for stay in hosts)
    if nameless:
        raise BadInput(f"{nameless} trials do not say which machine they ran on")
    for study in studies:
        if study.case.target.kind != "cuda" or not study.case.target.local:
            raise BadInput(
                f"study {study.id} was measured for the target {study.case.target.name}"
                f" ({study.case.target.kind}), not for the GPU it ran on"
            )
    for stay in hosts:
        if {name for name, _ in stay.software} < {"driver", "torch"}:
            raise BadInput(
                f"{machine_name(stay.machine.facts)} has no GPU with a driver, or does not say so:"
                " only what a GPU ran is shipped as the reference"
            )
    if len(hosts) > 1:
        lines = "; ".join(stay.line for stay in hosts)
        raise BadInput(f"the trials ran on several machines, or with several versions: {lines}")
    if not hosts[0].first:
        raise BadInput("no trial says when it ran")
    return hosts[0]


def _listed(study: Study) -> ReferenceStudy:
    case = study.case
    batch = max(trial.plan.batch for trial in study.done())
    return ReferenceStudy(study.id, case.model.id, case.workload.id, batch, len(study.done()))


def _packed(journals: Path, studies: Sequence[Study]) -> bytes:
    """The journals of these studies, the same bytes for the same journals; logs of libraries, which
    may name places of the machine, stay behind.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for study in sorted(studies, key=lambda study: study.id):
            folder = journals if journals.name == study.id else journals / study.id
            for path in sorted(folder.glob("*.jsonl")):
                content = path.read_bytes()
                entry = tarfile.TarInfo(f"{study.id}/{path.name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)
