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
from app.jobs.elsewhere import HERE
from app.reference.package import MANIFEST, Reference, ReferenceStudy
from core import disk
from core.errors import BadInput
from core.files.fingerprint import file_digest
from core.files.jsonfile import read_object
from core.machine.naming import machine_name
from core.machine.stays import span, stays
from core.study import Study
from store import open_store
from store.interface import Store

ARCHIVE = "journals.tar.gz"
# What git and a wheel carry without anyone minding.
MOST_BYTES = 16_000_000
_RESULT_BYTES = 64_000_000


def make(results: Sequence[Path], into: Path) -> Reference:
    """Write the archive and the manifest into the folder `into`, in the place of those that are
    there. Each of `results` holds journals: a folder of studies, one with their archive, or the
    archive.

    BadInput when anything of them was damaged, was a rehearsal, did not run on a GPU, or comes from
    cards or versions that are not the same.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        store = open_store("memory:")
        ids: dict[str, None] = {}
        for place in results:
            ids |= dict.fromkeys(_taken(store, Path(scratch), place))
        studies = [study for key in ids if (study := store.study(key)) is not None]
        kept = [study for study in studies if study.done()]
        if not kept:
            raise BadInput("there is no finished trial: nothing to ship")
        card, versions, days = _one_card(store, kept)
        packed = _packed(Path(scratch), kept)
    if len(packed) > MOST_BYTES:
        raise BadInput(
            f"the journals of {len(kept)} studies have {len(packed):,} bytes, {MOST_BYTES:,} are"
            " shipped at most: leave a study's folder out"
        )
    into.mkdir(parents=True, exist_ok=True)
    disk.replace(into / ARCHIVE, packed)
    shipped = Reference(
        into,
        ARCHIVE,
        file_digest(into / ARCHIVE),
        days,
        card,
        versions["driver"],
        versions["torch"],
        tuple(map(_listed, kept)),
    )
    disk.replace(into / MANIFEST, (dumps(shipped.manifest(), indent=2) + "\n").encode())
    return shipped


def _taken(store: Store, scratch: Path, results: Path) -> tuple[str, ...]:
    """The ids of the studies of one run, taken into the store."""
    _refuse_rehearsal(results)
    with unpacked(results) as journals:
        taken = ingest(store, scratch, journals)
    if taken.notices:
        raise BadInput(f"{results} is not whole: {' '.join(taken.notices)}")
    return taken.study_ids


def _refuse_rehearsal(results: Path) -> None:
    folder = results if results.is_dir() else results.parent
    for path in sorted(folder.glob("*.json")):
        if read_object(path, _RESULT_BYTES).get("rehearsal") is True:
            raise BadInput(f"{path} says that this was a rehearsal, without a GPU")


def _one_card(store: Store, studies: Sequence[Study]) -> tuple[str, dict[str, str], str]:
    """(card, versions, days) of all finished trials: one kind of GPU, one driver, one torch."""
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
    if len({(machine_name(stay.machine.facts), stay.software) for stay in hosts}) > 1:
        lines = "; ".join(stay.line for stay in hosts)
        raise BadInput(f"the trials ran on several cards, or with several versions: {lines}")
    days = sorted(trial.started_at[:10] for trial in trials if trial.started_at)
    if not days:
        raise BadInput("no trial says when it ran")
    return machine_name(hosts[0].machine.facts), dict(hosts[0].software), span(days[0], days[-1])


def _listed(study: Study) -> ReferenceStudy:
    case = study.case
    batch = max(trial.plan.batch for trial in study.done())
    return ReferenceStudy(study.id, case.model.id, case.workload.id, batch, len(study.done()))


def _packed(folder: Path, studies: Sequence[Study]) -> bytes:
    """The journals of these studies, the same bytes for the same journals; logs of libraries, which
    may name places of the machine, and what this store said of the studies stay behind.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for study in sorted(studies, key=lambda study: study.id):
            for path in sorted((folder / study.id).glob("*.jsonl")):
                if path.name != HERE:
                    content = path.read_bytes()
                    entry = tarfile.TarInfo(f"{study.id}/{path.name}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)
