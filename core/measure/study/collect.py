"""Which files the plans of a study need, found where the study was planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.catalogue.models import BUNDLED, find_folder
from core.data.files import read_bytes
from core.errors import BadInput
from core.files.fingerprint import file_digest, refusal
from core.files.folder import check_folder
from core.files.formats.companions import companions
from core.measure.study.plan import DATA, DRAFT, MODEL, TRACE, PlannedFile, StudyPlan
from core.plan import Plan, Technique, settings
from core.study import Study

# Where the model comes with Trimtab, or is drawn at random.
EVERYWHERE = ("bundled", "shape")
Sources = dict[str, Path]
Add = Callable[[PlannedFile, Path], None]


def collect(
    study: Study, plans: tuple[Plan, ...], with_model: bool = True
) -> tuple[StudyPlan, Sources]:
    """The plan of a study with all files that it needs, and where those that go along lie now, by
    their place in the archive; the model's go along unless not `with_model`.

    BadInput when a file is not there or is not what was planned with.
    """
    files: list[PlannedFile] = []
    sources: Sources = {}

    def add(file: PlannedFile, path: Path) -> None:
        files.append(file)
        if file.place:
            sources[file.place] = path

    model = study.case.model
    if model.source not in EVERYWHERE:
        folder = find_folder(model.id)
        if check_folder(folder).digest != model.revision:
            raise refusal(folder, [])
        _add_folder(folder, MODEL, MODEL if with_model else "", "", add)
    for number, word in enumerate(drafts(plans)):
        _add_folder(find_folder(word), DRAFT, f"{DRAFT}-{number}", word, add)
    for dataset in study.case.data:
        if dataset.path:
            path = _here(dataset.path)
            read_bytes(path)
            place = f"{DATA}/{dataset.sha256[:16]}{path.suffix}"
            _same(path, dataset.sha256, dataset.id)
            add(PlannedFile(DATA, dataset.id, dataset.sha256, path.stat().st_size, place), path)
    workload = study.case.workload
    if workload.trace:
        path = _here(workload.trace)
        place = f"{TRACE}/{workload.trace_digest[:16]}{path.suffix}"
        _same(path, workload.trace_digest, path.name)
        size = path.stat().st_size
        add(PlannedFile(TRACE, path.name, workload.trace_digest, size, place), path)
    return StudyPlan(study.with_trials(()), plans, tuple(files)), sources


def drafts(plans: tuple[Plan, ...]) -> tuple[str, ...]:
    """The draft models that techniques name and that do not come with Trimtab."""
    words = filter(None, (draft_of(each) for plan in plans for each in plan.techniques))
    return tuple(
        dict.fromkeys(
            word
            for word in words
            if word not in ("auto", *BUNDLED) and not word.startswith("shape:")
        )
    )


def draft_of(technique: Technique) -> str:
    """The draft model that a technique's settings name; empty where they name none."""
    return str(settings(technique).get("draft", ""))


def _add_folder(folder: Path, role: str, place: str, of: str, add: Add) -> None:
    content = check_folder(folder)
    names = [name for name, _ in content.fingerprint().files]
    if folder.is_dir():
        names += [name for name in companions(folder).texts if name not in names]
    for name in names:
        path = folder / name if folder.is_dir() else folder.parent / name
        where = f"{place}/{name}" if place else ""
        add(PlannedFile(role, name, file_digest(path), path.stat().st_size, where, of), path)


def _here(name: str) -> Path:
    """A file that a study names; one that was measured elsewhere names those of its machine."""
    path = Path(name)
    if not path.exists():
        raise BadInput(
            f"the study needs {name}, which is not on this machine: bundle it where that lies, or"
            " plan it anew with the options of `trimtab run` and a file that is here"
        )
    return path


def _same(path: Path, digest: str, name: str) -> None:
    if file_digest(path) != digest:
        raise BadInput(
            f"{name} has changed since the study was planned: bring the old file back, or plan a"
            " new study with the new one"
        )
